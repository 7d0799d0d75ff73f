"""The words of the page, for readers who are neither statisticians nor programmers."""

#: Families of scores in the order of the page: what they are called, and what they ask.
FAMILIES: dict[str, tuple[str, str]] = {
    "fidelity": (
        "Does the model need what the map shows?",
        "Pixels are removed or restored in the order of the map, and the model predicts again. An image with a hole "
        "is unlike the images that the model was trained on, so its prediction may be unreliable.",
    ),
    "road": (
        "Does the model need what the map shows, when removed pixels are filled in?",
        "As before, but removed pixels are filled in from their surroundings, so that there is no visible hole.",
    ),
    "composite": ("Several scores in one", "Computed from other scores on this page."),
    "localisation": (
        "Does the map show the object?",
        "The map is compared with a mask of the object. Where the model uses the background, a map can be right about "
        "the model and still lie beside the object.",
    ),
    "parts": (
        "Does the map weigh the parts of the object as the model does?",
        "These images are made of parts that can be removed one by one, so it is known how much each part matters to "
        "the model. Images without some parts were among those that the model was trained on.",
    ),
    "sensitivity": (
        "Does the map stay when the image hardly changes?",
        "A map that ignores the image is the most stable of all, so a stable map need not be right.",
    ),
    "stability": (
        "Is the map like the map of the reference image?",
        "Compared with the map of the same method on the reference image.",
    ),
    "sanity": (
        "Does the map change with the network and the class?",
        "A map that stays the same when the network's weights are drawn anew does not explain the network.",
    ),
    "complexity": (
        "How much of the image does the map light up?",
        "A small map is easy to read. It may still be wrong.",
    ),
}

#: Word → meaning, in the order of the page. Sections name the words that they use.
WORDS: dict[str, str] = {
    "Heatmap": (
        "An image that is meant to show which parts of the input the model used for its prediction. Bright means "
        "important. Different methods give different maps for the same prediction; this page tests which of them can "
        "be relied on."
    ),
    "Perturbation, severity": (
        "A disturbance of the image, from barely visible (severity 1) to strong (5): sensor noise, blur, "
        "compression, or an attack made to mislead the model (fgsm, pgd). Where strengths were calibrated, a "
        "severity is instead the strength at which a stated share of the predictions changes. Every method sees the "
        "very same disturbed images."
    ),
    "RBO (rank-biased overlap)": (
        "How far two maps agree on which parts of the image matter most. The parts are ranked in both maps and the "
        "rankings compared, the top counting most. 1 means the same ranking; unrelated maps get a small number that "
        "depends on how many parts there are."
    ),
    "Consistency": (
        "The middle (median) RBO over images whose prediction did not change. High is good: where the prediction "
        "stays, the map should stay."
    ),
    "Responsiveness": (
        "The chance that an image whose prediction changed shows the bigger change of its map than one whose "
        "prediction did not. 1: it always does. 0.5: no better than chance."
    ),
    "RM (robustness metric)": (
        "Consistency times responsiveness; 1 is best. It can be fooled: a map that ignores the image never changes, so "
        "its consistency is 1 and its responsiveness 0.5, which makes an RM of 0.5."
    ),
    "κ (kappa)": (
        "RBO with chance taken out: 0 is what two unrelated maps with as many empty parts would reach, 1 is the same "
        "ranking. Maps that are empty nearly everywhere agree by chance; κ does not credit that."
    ),
    "RM₀": (
        "RM with chance taken out of both halves: median κ times (2 × responsiveness − 1), at least 0. A map that "
        "ignores the image gets 0. Where RM and RM₀ disagree about who is best, trust RM₀."
    ),
    "Within severities": (
        "Compared only among images disturbed equally strongly. Stronger noise both changes more predictions and "
        "changes every map that depends on the image, so over all strengths together even a drawing of the edges "
        "seems to follow the prediction; at equal strength it does not."
    ),
    "Score (metric)": (
        "A number that says how good a map is in one respect. Each score asks a different question, and some can be "
        "satisfied by maps without content. ↑ higher is better, ↓ lower is better."
    ),
    "Control": (
        "A map that is useless on purpose, drawn without asking the network: random dots, the same value everywhere, a "
        "blob in the centre, the image's edges. A good score puts the controls last."
    ),
    "Fooled (⚑)": (
        "A score is fooled where a control is not significantly worse than the best real method on the same images. "
        "A value that a useless map can reach is no evidence for a method, so a fooled score is shown in grey and is "
        "not counted. In a noise study this is decided for every perturbation and severity too."
    ),
    "★ and bold": (
        "★ the method with the best mean, among real methods. Bold: it, and those that cannot be told from it."
    ),
    "Cannot be told apart": (
        "All pairs of methods are compared image by image, or condition by condition (Wilcoxon's signed-rank test, "
        "corrected by Holm for the number of pairs); for RM and RM₀ a bootstrap by image must agree. Where chance "
        "alone could explain the difference more than once in twenty times, the page does not call one of them better. "
        "The sentence at the top, the bars and what is bold come from the same tests. Methods whose maps are equal on "
        "this network count as one."
    ),
    "95 % interval": (
        "The range the number would be expected in if the study were repeated with other images of the same sort. "
        "All methods are measured on the same images, so two of them can differ significantly even where their "
        "intervals overlap."
    ),
    "† and –": (
        "Responsiveness needs images whose prediction changed and images whose prediction did not. † fewer than 20 of "
        "either: take the number with care. – fewer than 10: no number is given."
    ),
    "Mean rank over the scores": (
        "On every image the methods are ranked by each score that counts, 1 the best. The ranks of an image are "
        "averaged within a family of scores and then over the families, so that a family with many scores has one "
        "vote; then over the images."
    ),
    "Average rank": (
        "The methods are ranked by one number in every condition, or on every image, and the ranks are averaged: 1 if "
        "a method is always first. By another number the same method can have another average rank."
    ),
    "Friedman, Kendall's W": (
        "The Friedman test asks whether any difference between the methods is more than chance (small p: yes). W is "
        "how far the conditions or images agree on the order, from 0 (not at all) to 1 (completely)."
    ),
    "PSNR": "How strongly an image was disturbed, in decibels: above 40 hardly visible, below 20 obvious.",
    "Flagged": (
        "A value that is missing (or is a stated one, because the map is degenerate) carries a reason. "
        "A saturated row keeps its value: no masking moved a probability that is 0 or 1 to the digits that scores "
        "have. "
        "Flagged rows are counted, listed under “What was run”, and never dropped."
    ),
}
