"""The findings of a study for its tables and its page; each part is computed once, on first use."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any

import pandas as pd

from heatproof.class_names import class_text, name_of, several_in_words
from heatproof.errors import HeatproofError, InvalidStudy, UnknownName
from heatproof.report import frames
from heatproof.report.audited_images import audited_images
from heatproof.report.blocks import Answer, Section
from heatproof.report.condition_findings import ConditionFindings
from heatproof.report.frames import Frame
from heatproof.report.labelling import labelled
from heatproof.report.noise_checks import NoiseChecks
from heatproof.report.part_findings import PartFindings
from heatproof.report.refinement_findings import SettingRefinement, refinement_findings
from heatproof.report.robustness_findings import RobustnessFindings
from heatproof.report.score_findings import ScoreFindings
from heatproof.report.source import Source
from heatproof.report.stored_table import Tables
from heatproof.report.style import Style, styles
from heatproof.report.validity_findings import ValidityFindings
from heatproof.statistics.audit import audit_findings
from heatproof.statistics.audit_answers import AuditFindings
from heatproof.statistics.audit_images import ImageDecisions
from heatproof.statistics.audit_sentence import sentence
from heatproof.statistics.class_scores import CLASSES, class_table
from heatproof.statistics.peaks import Peaks, peak_sentences, place_of
from heatproof.statistics.special_rows import GROUND_TRUTH
from heatproof.studies.study import Study, stored_study


@dataclass(frozen=True)
class Findings:
    """The findings of a study. Sections and tables are functions of it.

    `rows` is a DuckDB connection with all rows of the study, for anything that is not an attribute.
    """

    source: Source

    @property
    def plan(self) -> Mapping[str, Any]:
        """`study.json`."""
        return self.source.plan

    @property
    def rows(self) -> Any:
        """All rows, as the view `rows`."""
        return self.source.connection

    @cached_property
    def study(self) -> Study:
        """The study as it is declared.

        Raises:
            UnknownName: no study of that name is known in this process. InvalidStudy: code that was not asked for.
        """
        try:
            return stored_study(str(self.plan.get("study")))
        except UnknownName as error:
            raise UnknownName(
                f"{error} A study of your own is known after `register_study`, or if it is run as "
                "python:package.module:STUDY."
            ) from None

    @property
    def section_names(self) -> list[str]:
        """The names of the sections of its page; for a function the last part of its module's name."""
        given = self.study.sections
        return [one if isinstance(one, str) else one.__module__.rpartition(".")[2] for one in given]

    @cached_property
    def robustness(self) -> RobustnessFindings | None:
        """Findings of pair metrics under noise; None without rows of one."""
        return RobustnessFindings.of(self.source)

    @cached_property
    def noise_checks(self) -> NoiseChecks | None:
        """The noise study's own checks; None without rows of pair metrics under noise."""
        if self.robustness is None:
            return None
        return NoiseChecks(self.robustness, int(self.plan.get("resamples") or 1000), int(self.plan.get("seed") or 0))

    @cached_property
    def scores(self) -> ScoreFindings | None:
        """Findings of metrics on the reference images; None without rows of one."""
        return ScoreFindings.of(self.source)

    @cached_property
    def class_scores(self) -> Frame:
        """Columns as in `CLASSES`; empty where one class is explained on all images."""
        if self.scores is None:
            return pd.DataFrame(columns=list(CLASSES))
        rows = frames.scores_by_class(self.rows, list(self.plan.get("pooled_targets") or ()))
        given = {"resamples": int(self.plan.get("resamples") or 1000), "seed": int(self.plan.get("seed") or 0)}
        names = {model: self.class_names(model) for model, _ in self.settings}
        return class_table(rows, self.scores.facts, self.scores.methods, self.scores.metrics, names, **given)

    @cached_property
    def validity(self) -> ValidityFindings | None:
        """Findings on the metrics themselves, held against the ground truth; None without one."""
        return None if self.scores is None else ValidityFindings.of(self.source, self.scores)

    @cached_property
    def refinement(self) -> list[SettingRefinement]:
        """Findings on refined maps, for each model and dataset that has them."""
        return refinement_findings(self.source, self.scores) if self.scores else []

    @cached_property
    def conditions(self) -> ConditionFindings | None:
        """Findings of metrics under all conditions; None where there are scores under the reference alone."""
        return ConditionFindings.of(self.source, self.scores)

    @cached_property
    def parts(self) -> PartFindings | None:
        """Findings of the metrics of parts; None without a validation set."""
        return PartFindings.of(self.source)

    @cached_property
    def audits(self) -> list[AuditFindings]:
        """The audit's answers for every method, for each model and dataset with scores."""
        return [one for one, _ in self.audited]

    @cached_property
    def audited(self) -> list[tuple[AuditFindings, ImageDecisions]]:
        """The audit's answers, and what follows for each image."""
        found = []
        for one in self._answered():
            assert self.scores is not None
            names = self.class_names(one.model)
            images = audited_images(one, self.rows, self.scores, self.robustness, names, self._fixed_class(one.model))
            one = replace(one, least=images.least, notes=(*one.notes, *images.notes))
            found.append((replace(one, sentence=sentence(one)), images))
        return found

    def _fixed_class(self, model: str) -> str:
        """The class that all maps of a model explain, in words; empty where it depends on the image, or where several
        classes may be right at once.
        """
        target = str(self.plan.get("target"))
        facts = next((one for one in self.plan.get("models") or () if one.get("name") == model), {})
        if facts.get("multi_label"):
            return ""
        names, index = self.class_names(model), int(target) if target.isdigit() else None
        found = names.index(target) if target in names else index
        return "" if found is None else class_text(names, found)

    def _answered(self) -> list[AuditFindings]:
        """The audit's answers for every method, from all images together."""
        robustness, scores = self.robustness, self.scores
        found = []
        for one in scores.settings if scores else ():
            assert scores is not None
            main = [s for s in robustness.main if s[:2] == one.setting] if robustness else []
            found.append(
                audit_findings(
                    one.setting.of(scores.scores),
                    scores.facts,
                    robustness.verdicts[main[0]] if robustness and main else None,
                    one.verdict.ranks if one.verdict else {},
                    model=one.setting.model,
                    dataset=one.setting.dataset,
                    layer=str(one.setting.of(scores.scores)["layer"].iloc[0]),
                    layers=frames.layers_of(self.rows, one.setting.model),
                    refused=self._refused(one.setting.model),
                    fixed=self.plan.get("target") != "predicted",
                    equal=one.equal,
                )
            )
        return found

    def _refused(self, model: str) -> Mapping[str, str]:
        """Method → why it is not applicable to a model."""
        facts = next((one for one in self.plan.get("models") or () if one.get("name") == model), {})
        return facts.get("not_applicable") or {}

    @cached_property
    def settings(self) -> list[tuple[str, str]]:
        """(model, dataset) of the rows, in the order of the plan."""
        found = set(frames.distinct(self.rows, "model", "dataset"))
        order = [frames.ordered({pair[i] for pair in found}, frames.names(self.plan.get(key)))
                 for i, key in enumerate(("models", "datasets"))]  # fmt: skip
        return [(model, dataset) for dataset in order[1] for model in order[0] if (model, dataset) in found]

    @cached_property
    def methods(self) -> list[str]:
        """Real methods in the order of the plan, then controls."""
        there = dict(frames.distinct(self.rows, "method", "control"))
        for name in ("", GROUND_TRUTH):
            there.pop(name, None)
        wanted = [*frames.names(self.plan.get("methods")), *frames.names(self.plan.get("maps"))]
        return sorted(frames.ordered(there, wanted), key=lambda method: there[method])

    @cached_property
    def controls(self) -> frozenset[str]:
        """The methods that are controls."""
        return frozenset(method for method, control in frames.distinct(self.rows, "method", "control") if control)

    @cached_property
    def looks(self) -> dict[str, Style]:
        """How each method is drawn in every figure."""
        return styles(self.methods, self.controls, self.labels)

    @cached_property
    def labels(self) -> dict[str, str]:
        """Method → what pages, figures and LaTeX call it, for methods with a display name."""
        return dict(self.plan.get("labels") or {})

    def labelled(self, value: Any) -> Any:
        """A text or blocks with the display names of methods."""
        return labelled(value, self.labels)

    def class_names(self, model: str) -> list[str]:
        """The names of a model's classes by index; none where they are not known."""
        return list((self.plan.get("class_names") or {}).get(model) or ())

    def target_text(self, target: str) -> str:
        """The class explained in words: a rule as it is, an index or a name as `hen (8)`; several classes in words."""
        pooled = list(self.plan.get("pooled_targets") or ())
        if target in pooled:
            return several_in_words([self._target_text(one) for one in pooled])
        return self._target_text(target)

    def _target_text(self, target: str) -> str:
        models = self.plan.get("models") or ()
        named = {one.get("named_targets", {}).get(target) for one in models} - {None}
        if len(named) == 1:
            return f"{target} ({named.pop()})"
        names = {name_of(self.class_names(str(one.get("name"))), int(target)) for one in models
                 if target.isdigit()} - {""}  # fmt: skip
        return f"{names.pop()} ({target})" if len(names) == 1 else target

    def peaks(self, model: str, dataset: str) -> dict[str, Peaks]:
        """How often the peak of each method lies on the mask, methods in order; none without masks."""
        found = frames.peaks(self.rows, model, dataset)
        return {method: found[method] for method in self.methods if method in found}

    def peak_sentences(self, model: str, dataset: str) -> list[str]:
        """Sentences on the peaks, that of the best method first; none without masks."""
        label = (self.plan.get("labelled_class") or {}).get(f"{model} on {dataset}")
        place = place_of([name_of(self.class_names(model), label)])
        return peak_sentences(self.peaks(model, dataset), self.controls, self._best(model, dataset), place)

    def _best(self, model: str, dataset: str) -> str:
        """The method that the page recommends, or that comes first in its verdict; empty where there is none."""
        if "audit" in self.section_names:
            found = [one.recommended for one in self.audits if (one.model, one.dataset) == (model, dataset)]
            return found[0] or "" if found else ""
        if self.robustness is not None:
            tops = [self.robustness.verdicts[one].top for one in self.robustness.main if one[:2] == (model, dataset)]
            return tops[0][0] if tops and tops[0] else ""
        settings = self.scores.settings if self.scores else ()
        verdicts = [one.verdict for one in settings if one.setting == (model, dataset) and one.verdict is not None]
        return verdicts[0].top[0] if verdicts and verdicts[0].top else ""

    @cached_property
    def flagged(self) -> Frame:
        """Images that could not be used at all: dataset, image, reason."""
        return frames.flagged(self.rows)

    @cached_property
    def reasons(self) -> Frame:
        """Flags on values of usable images: flag, metrics, methods, images, rows."""
        return frames.reasons(self.rows)

    @cached_property
    def correct(self) -> Frame:
        """Share of right predictions on the reference images: model, dataset, n, correct."""
        return frames.correct(self.rows)

    @cached_property
    def tables(self) -> Mapping[str, Frame]:
        """File name → table, without those that are None."""
        found = {}
        for name, made in self.study.tables.items():
            table = self._table(name, made)
            if table is not None:
                found[name] = table
        return Tables(found)

    def _table(self, name: str, made: str | Callable[["Findings"], Any]) -> Frame | None:
        try:
            table = _function(made, "heatproof.report.tables")(self)
        except HeatproofError:
            raise
        except Exception as error:  # a table of a user's own study may raise anything
            raise InvalidStudy(
                f"The table {name} of the study {self.study.name!r} failed. It raised {type(error).__name__}: {error}."
            ) from error
        if table is not None and not hasattr(table, "to_csv"):
            raise InvalidStudy(
                f"The table {name} of the study {self.study.name!r} must be a data frame or None. Got "
                f"{type(table).__name__}."
            )
        return table

    @cached_property
    def sections(self) -> list[Section]:
        """The sections of the page, in order."""
        return [self.labelled(section) for made in self.study.sections for section in self._sections_of(made)]

    @property
    def answers(self) -> list[Answer]:
        """The verdicts, which the page begins with."""
        return [answer for section in self.sections for answer in section.answers]

    def _sections_of(self, section: str | Callable[["Findings"], Any]) -> Iterator[Section]:
        name = section if isinstance(section, str) else getattr(section, "__name__", "section")
        function = section if callable(section) else import_module(f"heatproof.report.sections.{section}").section
        try:
            found = function(self)
            made = [] if found is None else [found] if isinstance(found, Section) else list(found)
        except HeatproofError:
            raise
        except Exception as error:  # a section of a user's own study may raise anything
            raise InvalidStudy(
                f"The section {name!r} of the study {self.study.name!r} failed. It raised {type(error).__name__}: "
                f"{error}."
            ) from error
        for one in made:
            if not isinstance(one, Section):
                raise InvalidStudy(
                    f"The section {name!r} of the study {self.study.name!r} must give a Section or None. Got "
                    f"{type(one).__name__}."
                )
        yield from made

    def images(self, dataset: str) -> str:
        """How many images of a dataset were used, and how a limit chose them, as `98 of 100 (photos)`."""
        total = frames.count_images(self.rows, dataset)
        aside = int((self.flagged["dataset"] == dataset).sum())
        used = f"{total - aside}" if not aside else f"{total - aside} of {total}"
        sample = (self.plan.get("samples") or {}).get(dataset)
        return f"{used} ({dataset}{f': {sample}' if sample else ''})"


def _function(made: str | Callable[[Findings], Any], module: str) -> Callable[[Findings], Any]:
    return made if callable(made) else getattr(import_module(module), made)
