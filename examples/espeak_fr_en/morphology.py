"""Joining words: French elision and contraction, English a/an, and the finite verb of a clause in both languages."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .verbs import ALLER, AVOIR, ETRE, FUTURE_ENDINGS, MODALS, Verb

_VOWEL = r"[aeiouâàéèêëîïôœùûh]"
# Words whose first letter is no vowel to the grammar: h aspiré (Hugo) and the numbers onze and huit.
_NO_ELISION = r"(?!onze\b|huit|haut|hugo\b)"
_ELIDES = re.compile(rf"(?<![-\w])(je|ne|de|que|me|se|le|la|LE|LA) (?={_NO_ELISION}{_VOWEL})")
_CONTRACTIONS = (("à LES", "aux"), ("à LE", "au"), ("de LES", "des"), ("de LE", "du"))
_AN = re.compile(r"\ba (?=(?:[aeio]|umb))")


def starts_with_vowel(word: str) -> bool:
    """True where the French word makes the word before it elide (l'hôtel, but le haut)."""
    return re.match(_NO_ELISION + _VOWEL, word) is not None


def french_join(*parts: str) -> str:
    """Joins the French words of a whole sentence; articles come as LE, LA, LES: de le voir never contracts."""
    text = " ".join(part for part in parts if part)
    text = _ELIDES.sub(lambda match: match.group(1)[:-1] + "'", text)
    text = text.replace("L'", "l'")
    for separate, joined in _CONTRACTIONS:
        text = re.sub(rf"\b{separate}\b", joined, text)
    return re.sub(r"\bsi (?=ils?\b)", "s'", text).lower()


def words(*parts: str) -> str:
    """Parts of a phrase with single blanks; elision waits for the whole sentence."""
    return " ".join(" ".join(parts).split())


def english_join(*parts: str) -> str:
    """Joins English words and chooses between "a" and "an"."""
    text = " ".join(part for part in parts if part)
    return _AN.sub("an ", text)


@dataclass(frozen=True)
class Subject:
    """Who does it: both texts, the French person, and what agreement needs."""

    fr: str
    en: str
    person: str  # je, il, nous, vous, ils
    gender: str = "m"
    pronoun: bool = False

    @property
    def third(self) -> bool:
        return self.person == "il"

    @property
    def plural(self) -> bool:
        return self.person in ("nous", "ils")


@dataclass(frozen=True)
class Action:
    """How a verb is said: tense (present, past, future, near, progressive, modals) and polarity.

    `negation` is a key of NEGATIONS; `adverb` a pair that follows the French and precedes the English verb.
    """

    tense: str = "present"
    negation: str = ""
    adverb: tuple[str, str] = ("", "")


def agree(participle: str, gender: str, plural: bool) -> str:
    """A participle agreed: parti, partie, partis, parties."""
    word = participle + ("e" if gender == "f" else "")
    return word + "s" if plural and not word.endswith("s") else word


def french_verb(
    subject: Subject, verb: Verb, action: Action, clitic: str = "", agreement: tuple[str, bool] | None = None
) -> str:
    """The French verb group with its clitic and negation; `agreement` (gender, plural) of an object before the verb."""
    ne, second, adverb = ("ne" if action.negation else ""), action.negation, action.adverb[0]
    if second == "personne":  # follows the participle: it comes with the object
        second = ""
    if action.tense == "past":
        auxiliary = (ETRE if verb.auxiliary == "être" else AVOIR)[subject.person]
        if verb.auxiliary == "être":
            agreement = (subject.gender, subject.plural)
        participle = agree(verb.participle, *agreement) if agreement else verb.participle
        return words(ne, clitic, auxiliary, second, adverb, participle)
    if action.tense == "near":
        return words(ne, ALLER[subject.person], second, adverb, clitic, verb.infinitive)
    if action.tense == "progressive":
        return words(ne, ETRE[subject.person], second, adverb, "en train de", clitic, verb.infinitive)
    if action.tense in MODALS:
        return words(ne, MODALS[action.tense][0][subject.person], second, adverb, clitic, verb.infinitive)
    finite = verb.present[subject.person]
    if action.tense == "future":
        finite = verb.future_stem + FUTURE_ENDINGS[subject.person]
    return words(ne, clitic, finite, second, adverb)


# rien and personne are objects in English: nothing, nobody.
NEGATIONS = {"": "", "pas": "not", "jamais": "never", "plus": "no longer", "rien": "", "personne": ""}


def be(subject: Subject) -> str:
    """am, is or are."""
    return "am" if subject.person == "je" else "is" if subject.third else "are"


def english_verb(subject: Subject, verb: Verb, action: Action) -> tuple[str, str]:
    """(auxiliary, rest) of a statement; ("", "looks for") has no auxiliary."""
    pre = NEGATIONS[action.negation]
    adverb = action.adverb[1]
    if action.tense == "near":
        return be(subject), f"{pre} {adverb} going to {verb.english('base')}"
    if action.tense == "progressive":
        return be(subject), f"{pre} {adverb} {verb.english('ing')}"
    if action.tense == "future":
        return "will", f"{pre} {adverb} {verb.english('base')}"
    if action.tense in MODALS and MODALS[action.tense][3] == "modal":
        auxiliary = MODALS[action.tense][1]
        if auxiliary == "can" and pre == "not":
            return "cannot", f"{adverb} {verb.english('base')}"
        return auxiliary, f"{pre} {adverb} {verb.english('base')}"
    do = "did" if action.tense == "past" else "does" if subject.third else "do"
    base = verb.english("base")
    finite = verb.english("past" if action.tense == "past" else "third" if subject.third else "base")
    if action.tense == "vouloir":
        base, finite = f"want to {base}", f"{MODALS['vouloir'][2 if subject.third else 1]} {base}"
    if pre == "not":
        return do, f"not {adverb} {base}"
    return "", f"{pre} {adverb} {finite}"


def english_clause(subject: Subject, verb: Verb, action: Action) -> str:
    """Subject and verb of an English statement."""
    auxiliary, rest = english_verb(subject, verb, action)
    return " ".join(f"{subject.en} {auxiliary} {rest}".split())


def english_question(subject: Subject, verb: Verb, action: Action) -> str:
    """Auxiliary, subject and verb of an English question: "did you not buy", "are you going to buy"."""
    auxiliary, rest = english_verb(subject, verb, action)
    if not auxiliary:
        auxiliary = "did" if action.tense == "past" else "does" if subject.third else "do"
        rest = verb.english("base")
        if action.tense == "vouloir":
            rest = f"want to {rest}"
        rest = f"{action.adverb[1]} {rest}"
    return " ".join(f"{auxiliary} {subject.en} {rest}".split())
