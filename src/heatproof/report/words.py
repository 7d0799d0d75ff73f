"""The page's glossary, in words for readers who are neither statisticians nor programmers."""

WORDS: tuple[tuple[str, str], ...] = (
    (
        "Heatmap (CAM)",
        "A picture of which parts the model is said to have used for its answer. Bright means "
        "important. Different methods draw different maps for the same answer; this page asks which "
        "of them can be relied on.",
    ),
    (
        "Perturbation, severity",
        "A disturbance of the picture, from barely visible (severity 1) to strong (5): sensor noise, "
        "blur, compression, or an attack made to mislead the model (fgsm, pgd). Every method sees the "
        "very same disturbed pictures.",
    ),
    (
        "RBO (rank-biased overlap)",
        "How far two maps agree on which parts of the picture matter most. The parts are ranked in "
        "both maps and the rankings compared, the top counting most. 1 means the same ranking; "
        "unrelated maps get a small number that depends on how many parts there are.",
    ),
    (
        "Consistency",
        "The middle (median) RBO over pictures whose prediction did not change. High is good: while "
        "the model's answer stays, the explanation should stay.",
    ),
    (
        "Responsiveness",
        "The chance that a picture whose prediction changed shows the bigger change of its map than "
        "one whose prediction did not. 1: the map always gives the change away. 0.5: no better than a "
        "coin.",
    ),
    (
        "RM (robustness metric)",
        "Consistency times responsiveness; 1 is best. It can be fooled: a map that ignores the "
        "picture never moves, so its consistency is 1 and its responsiveness 0.5, which makes an RM "
        "of 0.5.",
    ),
    (
        "κ (kappa)",
        "RBO with luck taken out: 0 is what two unrelated maps with as many empty parts would reach, "
        "1 is the same ranking. Maps that are empty nearly everywhere agree by luck; κ does not "
        "credit that.",
    ),
    (
        "RM₀",
        "RM with luck taken out of both halves: median κ times (2 × responsiveness − 1), at least 0. "
        "A map that ignores the picture gets 0. Where RM and RM₀ disagree about who is best, trust "
        "RM₀.",
    ),
    (
        "Within severities",
        "Compared only among pictures disturbed equally strongly. Stronger noise both changes more predictions and "
        "moves every map that looks at the picture, so over all strengths together even a drawing of the edges "
        "seems to follow the prediction; at equal strength it does not.",
    ),
    (
        "Control",
        "A map that is useless on purpose: random dots, a blob in the centre, the picture's edges. A "
        "good measure puts the controls last. Where a control keeps up with the best real method, the "
        "measure is fooled (⚑).",
    ),
    (
        "95 % interval",
        "The range the number would be expected in if the study were repeated with other pictures of "
        "the same sort. Where the intervals of two methods overlap widely, do not read much into "
        "their order.",
    ),
    (
        "† and –",
        "Responsiveness needs pictures whose prediction changed and pictures whose prediction did "
        "not. † fewer than 20 of either: take the number with care. – fewer than 10: no number is "
        "given.",
    ),
    (
        "Average rank, critical distance, Friedman, Kendall's W",
        "In every condition the methods are ranked, 1 the best; the average tells who is better as a "
        "rule. Methods whose average ranks differ by less than the critical distance cannot be told "
        "apart (joined by a bar). The Friedman test asks whether any difference is more than chance "
        "(small p: yes). W is how far the conditions agree on the order, from 0 (not at all) to 1 "
        "(completely).",
    ),
    (
        "PSNR",
        "How strongly a picture was disturbed, in decibels: above 40 hardly visible, below 20 obvious.",
    ),
)
