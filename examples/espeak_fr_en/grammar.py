"""The grammar: draws constructions by weight and makes one sentence in both languages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from .facts import Facts
from .morphology import english_join, french_join
from .phrases import Pair
from .sentences import Sentences
from .talk import Talk

MIN_WORDS, MAX_WORDS = 5, 16  # English words in a sentence
# How often each construction (a method of that name) is made, relative to the others.
WEIGHTS: dict[str, float] = {
    "event_with_time": 6, "event_with_place": 5, "because": 5, "when": 4, "condition": 4, "opinion": 5, "promise": 1.5,
    "relative_subject": 4, "relative_object": 5, "comparison": 5, "there_is": 4, "cost": 4, "belongings": 2.5,
    "age_and_birth": 2.5, "what_time": 3, "today": 2, "timetable": 2, "purpose": 4, "before_and_without": 3,
    "like_to": 4,
    "with_antecedent": 5, "coordination": 4, "nothing_and_nobody": 2.5, "yes_no_question": 4, "where_when_why": 4,
    "who_question": 2.5, "how_many": 2.5, "which_question": 3, "order": 5, "greeting": 3, "thanks": 3, "company": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Sentence:
    """A sentence in both languages, the construction that made it and everything tagged in it."""

    french: str
    english: str
    construction: str
    tags: tuple[str, ...]


class Grammar(Sentences, Facts, Talk):
    """Draws sentences, constructions in turn by weight, words least-used first."""

    def __init__(self, seed: int | str) -> None:
        super().__init__(seed)
        self.made: Counter[str] = Counter()
        self.constructions: dict[str, tuple[Callable[[], Pair], float]] = {
            name: (getattr(self, name), weight) for name, weight in WEIGHTS.items()
        }

    def sentence(self) -> Sentence:
        """One sentence of MIN_WORDS..MAX_WORDS English words; the construction furthest behind its share is next."""
        share = {
            name: (self.made[name] + self.rng.random()) / weight for name, (_, weight) in self.constructions.items()
        }
        name = min(share, key=lambda name: share[name])
        self.made[name] += 1
        while True:
            self.tags = set()
            pair = self.constructions[name][0]()
            english = english_join(pair.en)
            if MIN_WORDS <= len(english.split()) <= MAX_WORDS and self.chance(_keep(len(english.split()))):
                return Sentence(french_join(pair.fr), english, name.replace("_", " "), tuple(sorted(self.tags)))


def _keep(length: int) -> float:
    """The share of sentences kept at a length: favours 8 to 12 words."""
    return {5: 0.3, 6: 0.5, 7: 0.7, 13: 0.8, 14: 0.6, 15: 0.4, 16: 0.3}.get(length, 1.0)
