"""Recipes: trainings in stages, each a plain run of ``fairseq-train``."""

from nast_s2x.training.launch import run_recipe
from nast_s2x.training.recipe import Recipe, Stage, find_recipe, read_recipe

__all__ = ["Recipe", "Stage", "find_recipe", "read_recipe", "run_recipe"]
