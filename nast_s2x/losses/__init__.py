"""Losses and glancing, as pure functions of logits and labels without fairseq, modules or state."""

from nast_s2x.losses.ctc import ctc_loss
from nast_s2x.losses.glancing import glance_probability, make_glancer
from nast_s2x.losses.nmla import nmla_loss
from nast_s2x.losses.objective import Objective
from nast_s2x.losses.schedules import GlancingSchedule

__all__ = ["GlancingSchedule", "Objective", "ctc_loss", "glance_probability", "make_glancer", "nmla_loss"]
