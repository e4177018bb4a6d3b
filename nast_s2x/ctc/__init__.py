"""CTC: collapse of labels to tokens, and best alignments."""

from nast_s2x.ctc.collapse import CtcCollapser, ctc_collapse
from nast_s2x.ctc.viterbi import aligned_labels, viterbi_align

__all__ = ["CtcCollapser", "aligned_labels", "ctc_collapse", "viterbi_align"]
