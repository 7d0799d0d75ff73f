"""What the page of a score study calls things, for readers who are neither statisticians nor programmers."""

#: Families of scores in the order of the page: what they are called, and what they ask.
FAMILIES: dict[str, tuple[str, str]] = {
    "fidelity": (
        "Does the model need what the map shows?",
        "The picture is covered, cut or uncovered as the map says, and the model asked again. A hole is itself a "
        "strange picture, which the model may answer strangely.",
    ),
    "road": (
        "Does the model need what the map shows, when removed pixels are filled in?",
        "As before, but what is removed is filled from its surroundings, so that the hole leaves no trace of its own.",
    ),
    "composite": ("Several scores in one", "Made of other scores on this page."),
    "localisation": (
        "Does the map show the object?",
        "Compared with a mask of the object. A map can be right about the model and beside the object, where the model "
        "looks beside it.",
    ),
    "sensitivity": (
        "Does the map stay when the picture hardly moves?",
        "A steady map is not yet a right one: a map that ignores the picture is the steadiest of all.",
    ),
    "sanity": (
        "Does the map change with the network and the class?",
        "A map that stays as it was when the network's weights are drawn anew does not explain the network.",
    ),
    "complexity": (
        "How much of the picture does the map name?",
        "A small map is easy to read. It may still be wrong.",
    ),
}

WORDS: tuple[tuple[str, str], ...] = (
    (
        "Heatmap",
        "A picture of which parts the model is said to have used for its answer. Bright means important. Different "
        "methods draw different maps for the same answer; this page asks which of them deserve belief.",
    ),
    (
        "Score (metric)",
        "A number that says how good a map is in one respect. No score knows the truth: each asks a different "
        "question, and some can be satisfied by maps that say nothing. ↑ higher is better, ↓ lower is better.",
    ),
    (
        "Control",
        "A map that is useless on purpose, drawn without asking the network: random dots, the same value everywhere, "
        "a blob in the centre, the picture's edges. A good score puts the controls last.",
    ),
    (
        "Fooled (⚑)",
        "A score is fooled where a control is not significantly worse than the best real method on the same pictures. "
        "What a useless map can reach proves nothing about the others, so a fooled score is shown in grey, and "
        "decides nothing.",
    ),
    (
        "★ and bold",
        "★ the method with the best mean, among real methods. Bold: it, and those that cannot be told from it.",
    ),
    (
        "Cannot be told apart",
        "Two methods are compared picture by picture (Wilcoxon's signed-rank test, corrected by Holm for the number "
        "of comparisons). Where chance alone could explain the difference more than once in twenty times, the page "
        "does not call one of them better.",
    ),
    (
        "95 % interval",
        "The small numbers below a mean: the range the mean would be expected in if the study were repeated with "
        "other pictures of the same sort. Methods see the same pictures, so two of them can differ surely even where "
        "their intervals overlap.",
    ),
    (
        "Average rank",
        "On every picture the methods are ranked by each score that counts, 1 the best. Ranks are averaged within a "
        "family of scores, then over the families, so that a family with many scores has one vote.",
    ),
    (
        "Critical distance, Friedman, Kendall's W",
        "Methods whose average ranks differ by less than the critical distance cannot be told apart (joined by a "
        "bar). The Friedman test asks whether any difference is more than chance (small p: yes). W is how far the "
        "pictures agree on the order, from 0 (not at all) to 1 (completely).",
    ),
    (
        "Flagged",
        "A score that has no value for some map (or a stated one, because the map says nothing) carries a reason. "
        "Flagged rows are counted, listed under “What was run”, and never dropped.",
    ),
)
