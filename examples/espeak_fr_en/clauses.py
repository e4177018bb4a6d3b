"""Clauses said jointly in both languages: events, infinitive groups and the object pronouns of French."""

from __future__ import annotations

from collections.abc import Sequence

from .lexicon import ANIMALS, FOODS, KIN, MASS, PEOPLE, PLACES, THINGS, Noun
from .morphology import (
    Action,
    Subject,
    english_clause,
    english_question,
    french_verb,
    starts_with_vowel,
    words,
)
from .phrases import EMPTY, NounPhrase, Pair
from .states import Clause, States
from .verbs import (
    GIVING,
    ING_VERBS,
    INTRANSITIVE,
    INVOLUNTARY,
    SPEAKING,
    TRANSITIVE,
    Verb,
)

OBJECTS: list[Noun] = THINGS + FOODS + MASS + ANIMALS + KIN + PEOPLE + PLACES
ADVERBS: dict[str, tuple[tuple[str, str], ...]] = {
    "present": (("souvent", "often"), ("toujours", "always"), ("parfois", "sometimes"), ("rarement", "rarely")),
    "past": (("déjà", "already"), ("enfin", "finally"), ("vite", "quickly")),
    "future": (("peut-être", "perhaps"), ("sûrement", "surely"), ("bientôt", "soon")),
}
# French clitics: (clitic, English object, person that may not be the subject, is it third person)
CLITICS_OBJECT = (
    ("me", "me", "je"),
    ("nous", "us", "nous"),
    ("vous", "you", "vous"),
    ("le", "him", ""),
    ("la", "her", ""),
    ("les", "them", ""),
)
CLITICS_DATIVE = (
    ("me", "me", "je"),
    ("nous", "us", "nous"),
    ("vous", "you", "vous"),
    ("lui", "him", ""),
    ("leur", "them", ""),
)


class Clauses(States):
    """Builds clauses from phrases."""

    # ---- events
    def action(self, tense: str, negation: bool = True, adverb: bool = True) -> Action:
        """Polarity and adverb for a verb in this tense."""
        if negation and self.chance(0.16):
            kinds = ["pas", "pas"] + (["jamais", "plus"] if tense in ("present", "future") else [])
            chosen = self.rng.choice(kinds)
            self.tags.add(f"negation ne ... {chosen}")
            return Action(tense, chosen)
        if adverb and tense in ADVERBS and self.chance(0.14):
            self.tags.add("adverb")
            return Action(tense, "", self.pick(ADVERBS[tense], lambda pair: f"adverb {pair[0]}", 2))
        return Action(tense)

    def verb(self, verbs: Sequence[Verb], tense: str, subject: Subject | None = None) -> Verb:
        """The verb least used in the form that this tense and subject need."""
        form = "base"
        if tense in ("past", "progressive"):
            form = tense
        elif tense == "present" and subject is not None and subject.third:
            form = "third"
        if tense == "progressive":
            verbs = [verb for verb in verbs if verb.infinitive in ING_VERBS]
        elif tense not in ("present", "past"):
            verbs = [verb for verb in verbs if verb.infinitive not in INVOLUNTARY] or verbs
        return self.pick(verbs, lambda verb: f"verb {verb.base} {form}", 5)

    def complement(self, verb: Verb, negated: bool = False, rate: float = 0.55, tense: str = "") -> NounPhrase:
        """An object that the verb takes."""
        noun = self.noun(OBJECTS, *verb.tags)
        definite = verb.infinitive in ("aimer", "détester", "nettoyer", "goûter", "oublier", "finir") or (
            "mass" in noun.tags and verb.infinitive in ("choisir", "finir", "aimer", "détester")
        )
        if "thing" in noun.tags and self.chance(0.1) and not negated:
            return self.owned(noun)
        if "mass" in noun.tags and verb.infinitive in ("aimer", "détester") and tense == "present":
            return self.generic(noun)
        return self.object(noun, negated, rate, definite)

    def generic(self, noun: Noun) -> NounPhrase:
        """aimer le café froid / like cold coffee: the article of the general in French only."""
        adjectives = [adjective for adjective in self.adjectives(noun, 0.5) if not adjective.before]
        phrase = self.phrase(noun, False, "the", adjectives)
        return NounPhrase(Pair(phrase.text.fr, phrase.text.en.removeprefix("the ")), noun, False)

    def clause(
        self,
        subject: Subject,
        verb: Verb,
        action: Action,
        clitic: str = "",
        obj: Pair = EMPTY,
        agreement: tuple[str, bool] | None = None,
        phrase: NounPhrase | None = None,
    ) -> Clause:
        """Puts a clause together; `obj` follows the verb in both languages."""
        self.tags.add(
            {
                "past": "past",
                "future": "future",
                "near": "near future",
                "progressive": "progressive",
                "present": "present",
            }.get(action.tense, "modal verb")
        )
        obj_fr, obj_en = obj
        return Clause(
            subject,
            words(french_verb(subject, verb, action, clitic, agreement), obj_fr),
            words(english_clause(subject, verb, action), obj_en),
            words(english_question(subject, verb, action), obj_en),
            phrase,
        )

    def event(self, tense: str, subject: Subject | None = None, rate: float = 0.55, simple: bool = False) -> Clause:
        """Somebody does something; `simple` leaves negation and pronouns out."""
        subject = subject or self.subject(tense)
        action = self.action(tense, negation=not simple, adverb=not simple)
        roll = self.rng.random()
        if roll < 0.22:
            return self.movement(subject, action)
        if roll < 0.3 and tense != "progressive":
            return self.giving(subject, action)
        if roll < 0.38 and not simple:
            return self.with_pronoun(subject, action)
        if 0.38 <= roll < 0.45 and not simple:
            return self.with_dative(subject, action)
        verb = self.verb(TRANSITIVE, tense, subject)
        obj = self.complement(verb, bool(action.negation), rate, tense)
        return self.clause(subject, verb, action, obj=obj.text, phrase=obj)

    def movement(self, subject: Subject, action: Action) -> Clause:
        """A verb without object and its place."""
        # "j'habite souvent" is no French; "je vais aller" says little
        left_out = {"habiter"} | ({"aller"} if action.tense == "near" else set())
        verbs = [verb for verb in INTRANSITIVE if verb.infinitive not in left_out]
        verb = self.verb(verbs, action.tense, subject)
        return self.clause(subject, verb, action, obj=self.place_of(verb))

    def place_of(self, verb: Verb) -> Pair:
        """The place that goes with an intransitive verb."""
        if "go" in verb.tags or "pool" in verb.tags:
            return self.place("go" if "go" in verb.tags else "pool")
        if "arrive" in verb.tags:
            return Pair("à", "at") + self.place_phrase("at").text
        if "from" in verb.tags:
            return Pair("de", "from") + self.place_phrase("at").text
        if "enter" in verb.tags:
            return Pair("dans", "") + self.place_phrase("in", 0.4).text
        if "walk" in verb.tags and self.chance(0.5):
            return Pair("dans", "in") + self.place_phrase("in", 0.4).text
        if "walk" in verb.tags:
            return self.beside()
        if "home" in verb.tags:
            return self.beside() if self.chance(0.6) else Pair("dans", "in") + self.phrase_of_home().text
        return self.place() if "at" in verb.tags else EMPTY

    def phrase_of_home(self) -> NounPhrase:
        noun = self.noun([noun for noun in PLACES if noun.fr in ("appartement", "maison", "château", "village")])
        return self.phrase(noun, False, self.rng.choice(("a", "this")), self.adjectives(noun, 0.8))

    def giving(self, subject: Subject, action: Action) -> Clause:
        """donner le livre à ma sœur / give the book to my sister."""
        verb = self.verb(GIVING, action.tense, subject)
        noun = self.noun(THINGS + FOODS + ANIMALS, *verb.tags)
        obj = self.object(noun, bool(action.negation), 0.3)
        if self.chance(0.3):
            person = Pair(*(self.name().fr,) * 2)
        else:
            person = self.person(rate=0.1, plural_rate=0.15).text
        self.tags.add("recipient")
        return self.clause(subject, verb, action, obj=obj.text + Pair("à", "to") + person, phrase=obj)

    def with_pronoun(self, subject: Subject, action: Action) -> Clause:
        """An object pronoun before the French verb: je les vends / i sell them."""
        tense = action.tense
        self.tags.add("object pronoun")
        if self.chance(0.5):
            verb = self.verb([verb for verb in TRANSITIVE if verb.pronoun == "person"], tense, subject)
            clitics = [c for c in CLITICS_OBJECT if c[2] != subject.person]
            if tense == "past" or (tense in ("present", "future") and starts_with_vowel(verb.infinitive)):
                clitics = [c for c in clitics if c[0] not in ("le", "la")]  # l' would hide him or her
            clitic, english, _ = self.pick(clitics, lambda c: f"clitic {c[0]}", 3)
            return self.clause(subject, verb, action, clitic, Pair("", english), ("m", clitic in ("les", "nous")))
        verbs = [verb for verb in TRANSITIVE if verb.pronoun == "thing"]
        verb = self.verb(verbs, tense, subject)
        clitic, english = self.pick((("le", "it"), ("la", "it"), ("les", "them")), lambda c: f"clitic thing {c[0]}", 2)
        if tense == "past" and clitic != "les":
            clitic = "le"  # l'ai vendu
            if subject.person == "il":  # "il l'a vendu" and "il a vendu" sound almost alike
                clitic, english = "les", "them"
        return self.clause(subject, verb, action, clitic, Pair("", english), ("m", clitic == "les"))

    def with_dative(self, subject: Subject, action: Action) -> Clause:
        """A dative pronoun before the French verb: il leur parle, elle m'envoie une lettre."""
        self.tags.add("dative pronoun")
        clitics = [c for c in CLITICS_DATIVE if c[2] != subject.person]
        clitic, english, _ = self.pick(clitics, lambda c: f"dative {c[0]}", 2)
        if self.chance(0.35) or action.tense == "progressive":
            verb = self.verb(SPEAKING, action.tense, subject)
            return self.clause(subject, verb, action, clitic, Pair("", english))
        verb = self.verb(GIVING, action.tense, subject)
        obj = self.object(self.noun(THINGS + FOODS, *verb.tags), bool(action.negation), 0.5)
        return self.clause(subject, verb, action, clitic, Pair("", english) + obj.text, phrase=obj)

    def infinitive(self, form: str = "base", rate: float = 0.5, pronoun: bool = True) -> Pair:
        """An infinitive group: acheter du pain / buy some bread; form "ing": buying some bread."""
        roll = self.rng.random()
        if pronoun and roll < 0.12:
            self.tags.add("object pronoun")
            verb = self.verb([verb for verb in TRANSITIVE if verb.pronoun == "person"], "infinitive")
            clitics = [c for c in CLITICS_OBJECT if not (c[0] in ("le", "la") and starts_with_vowel(verb.infinitive))]
            clitic, english, _ = self.pick(
                [c for c in clitics if c[0] in ("le", "la", "les")], lambda c: f"clitic {c[0]}", 3
            )
            return Pair(words(clitic, verb.infinitive), words(verb.english(form), english))
        tense = "infinitive" if form == "base" else "progressive"
        if roll < 0.3:
            verb = self.verb([v for v in INTRANSITIVE if v.tags & {"at", "walk", "pool", "go"}], tense)
            return Pair(verb.infinitive, verb.english(form)) + self.place_of(verb)
        verb = self.verb(TRANSITIVE, tense)
        return Pair(verb.infinitive, verb.english(form)) + self.complement(verb, rate=rate).text

    def tense(self) -> str:
        tenses = ("present", "present", "past", "past", "future", "near", "progressive", "pouvoir", "devoir", "vouloir")
        return self.pick(tenses, lambda tense: f"tense {tense}", 2)

    def around(self, clause: Pair, tense: str) -> Pair:
        """The clause with a time before or after it."""
        time = self.time(tense)
        return time + clause if self.chance(0.45) else clause + time
