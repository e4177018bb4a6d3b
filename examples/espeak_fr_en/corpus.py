"""The text of the corpus: train, dev and test sentences that satisfy the checks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from . import checks
from .grammar import Grammar, Sentence

MIN_OCCURRENCES = 5  # of each English word form in training
MIN_FORMS = 600
MIN_MEAN_WORDS = 9.0
MAX_NEAREST_BLEU = 30.0


@dataclass(frozen=True)
class Corpus:
    """Sentences by split."""

    train: list[Sentence]
    dev: list[Sentence]
    test: list[Sentence]

    def splits(self) -> dict[str, list[Sentence]]:
        return {"train": self.train, "dev": self.dev, "test": self.test}


class _Source:
    """New sentences only: neither the French nor the English text was made before."""

    def __init__(self, seed: int) -> None:
        self.grammar = Grammar(seed)
        self.french: set[str] = set()
        self.english: set[str] = set()

    def next(self) -> Sentence:
        while True:
            sentence = self.grammar.sentence()
            if sentence.french not in self.french and sentence.english not in self.english:
                self.french.add(sentence.french)
                self.english.add(sentence.english)
                return sentence


def generate(seed: int = 1, train: int = 10000, dev: int = 200, test: int = 200) -> Corpus:
    """The same corpus for the same arguments.

    In a training set of full size (8,000 or more) sentences with a word form seen fewer than five times are replaced
    until there is none; dev and test use only word forms that training has.
    """
    if min(train, dev, test) < 1:
        raise ValueError(f"generate: train, dev and test must be at least 1, got {train}, {dev}, {test}")
    source = _Source(seed)
    kept = [source.next() for _ in range(train)]
    while train >= 8000:
        counts = checks.word_forms([sentence.english for sentence in kept])
        rare = {word for word, count in counts.items() if count < MIN_OCCURRENCES}
        common = [sentence for sentence in kept if not rare.intersection(sentence.english.split())]
        if len(common) == len(kept):
            break
        kept = common + [source.next() for _ in range(train - len(common))]
    known = {word for sentence in kept for word in sentence.english.split()}
    held_out: list[Sentence] = []
    while len(held_out) < dev + test:
        sentence = source.next()
        if known.issuperset(sentence.english.split()):
            held_out.append(sentence)
    return Corpus(kept, held_out[:dev], held_out[dev:])


def statistics(corpus: Corpus) -> dict[str, object]:
    """Counts of the text: words, forms, constructions, nearest-sentence BLEU."""
    english = [sentence.english for sentence in corpus.train]
    forms = checks.word_forms(english)
    found = checks.nearest([s.french for s in corpus.train], [s.french for s in corpus.test])
    bleu = checks.corpus_bleu([english[index] for index in found], [s.english for s in corpus.test])
    constructions = Counter(s.construction for s in corpus.train)
    tags = Counter(tag for s in corpus.train for tag in s.tags)
    return {
        "sentences": {split: len(sentences) for split, sentences in corpus.splits().items()},
        "mean_english_words": round(sum(len(text.split()) for text in english) / len(english), 3),
        "mean_french_words": round(sum(len(s.french.split()) for s in corpus.train) / len(english), 3),
        "english_word_forms": len(forms),
        "rarest_form_occurrences": min(forms.values()),
        "nearest_sentence_bleu": round(bleu, 2),
        "constructions": dict(constructions.most_common()),
        "tags": dict(tags.most_common()),
    }


def problems(figures: dict[str, object]) -> list[str]:
    """What a corpus of full size fails of its requirements; empty where it meets them all."""
    found = []
    if figures["english_word_forms"] < MIN_FORMS:
        found.append(f"at least {MIN_FORMS} English word forms are needed, there are {figures['english_word_forms']}")
    if figures["rarest_form_occurrences"] < MIN_OCCURRENCES:
        found.append(
            f"each form must occur {MIN_OCCURRENCES} times, the rarest {figures['rarest_form_occurrences']} times"
        )
    if figures["mean_english_words"] < MIN_MEAN_WORDS:
        found.append(f"the mean length must be {MIN_MEAN_WORDS} English words, it is {figures['mean_english_words']}")
    if figures["nearest_sentence_bleu"] > MAX_NEAREST_BLEU:
        found.append(
            f"the nearest-sentence BLEU must not exceed {MAX_NEAREST_BLEU}, it is {figures['nearest_sentence_bleu']}"
        )
    if len(figures["constructions"]) < 15:
        found.append(f"at least 15 constructions are needed, there are {len(figures['constructions'])}")
    return found
