"""CTC: collapse of labels to tokens, feasibility, best alignments."""

from nast_s2x.ctc.collapse import (
    CtcCollapser,
    aligned_labels,
    ctc_collapse,
    is_feasible,
    viterbi_align,
)

__all__ = ["CtcCollapser", "aligned_labels", "ctc_collapse", "is_feasible", "viterbi_align"]
