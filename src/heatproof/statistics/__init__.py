"""Intervals, paired tests, agreement and the verdict: numbers and data frames only, never torch."""

from heatproof.statistics.agreement import Agreement, cliques, kendall_w, nemenyi_distance, segmenter_agreement
from heatproof.statistics.fooling import MetricRanking, fooled
from heatproof.statistics.intervals import Interval, Replicates, bootstrap, delong, multiplicities
from heatproof.statistics.paired import Comparison, Friedman, PairTest, compared, friedman, wilcoxon_pairs
from heatproof.statistics.robustness import Robustness, auc, consistency, responsiveness, robustness_of
from heatproof.statistics.robustness_tables import COLUMNS, image_blocks, pooled, rm_blocks, robustness_table
from heatproof.statistics.robustness_verdict import Verdict, verdict_on
from heatproof.statistics.score_tables import curve_table, html_table, score_table
from heatproof.statistics.score_verdict import ScoreVerdict, score_verdicts

__all__ = [
    "COLUMNS",
    "Agreement",
    "Comparison",
    "Friedman",
    "Interval",
    "MetricRanking",
    "PairTest",
    "Replicates",
    "Robustness",
    "ScoreVerdict",
    "Verdict",
    "auc",
    "bootstrap",
    "cliques",
    "compared",
    "consistency",
    "curve_table",
    "delong",
    "fooled",
    "friedman",
    "html_table",
    "image_blocks",
    "kendall_w",
    "multiplicities",
    "nemenyi_distance",
    "pooled",
    "responsiveness",
    "rm_blocks",
    "robustness_of",
    "robustness_table",
    "score_table",
    "score_verdicts",
    "segmenter_agreement",
    "verdict_on",
    "wilcoxon_pairs",
]
