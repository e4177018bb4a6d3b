"""Constructions of talk: questions, orders, greetings, thanks."""

from __future__ import annotations

from . import numerals
from .clauses import OBJECTS, Clause, Clauses
from .lexicon import ANIMALS, CITIES, FOODS, KIN, PEOPLE, PLACES, THINGS
from .morphology import Action, Subject, words
from .phrases import PRONOUNS, Pair
from .verbs import GIVING, INTRANSITIVE, TRANSITIVE

OBJECTS_TO_ASK = [noun for noun in OBJECTS if noun.tags & {"thing", "food", "mass"}]


class Talk(Clauses):
    """Questions and what people say to each other."""

    def yes_no_question(self) -> Pair:
        self.tags.add("question")
        tense = self.tense()
        if self.chance(0.2):
            clause = self.state("present")
        else:
            clause = self.event(tense, self.subject(tense), rate=0.5, simple=True)
        text = Pair(words("est-ce que", clause.pair.fr), clause.question)
        return text + self.time(tense) if self.chance(0.5) and "state" not in text.en else text

    def where_when_why(self) -> Pair:
        """où, quand, pourquoi, comment, à quelle heure est-ce que ..."""
        self.tags.add("question")
        options = (
            ("où", "where"),
            ("quand", "when"),
            ("pourquoi", "why"),
            ("comment", "how"),
            ("à quelle heure", "at what time"),
        )
        french, english = self.pick(options, lambda option: f"ask {option[0]}", 2)
        tense = self.pick(
            ("past", "present", "future", "near", "pouvoir", "vouloir", "devoir"), lambda t: f"ask {t}", 2
        )
        clause = self.asked(tense)
        text = Pair(words(french, "est-ce que", clause.pair.fr), words(english, clause.question))
        if french in ("pourquoi", "comment", "où") and self.chance(0.35):
            return text + self.time(tense)
        return text + self.place() if french in ("quand", "à quelle heure", "pourquoi") and self.chance(0.4) else text

    def asked(self, tense: str) -> Clause:
        """The clause of a question: an object, no place of its own."""
        subject = self.subject(tense)
        verb = self.verb(TRANSITIVE, tense, subject)
        if self.chance(0.3):
            return self.giving(subject, Action(tense))
        return self.clause(subject, verb, Action(tense), obj=self.complement(verb, rate=0.5, tense=tense).text)

    def who_question(self) -> Pair:
        """qui a cassé la fenêtre / who broke the window."""
        self.tags.add("question")
        tense = self.pick(("past", "present", "future", "pouvoir", "vouloir"), lambda t: f"who {t}", 2)
        clause = self.event(tense, Subject("qui", "who", "il"), rate=0.5, simple=True).pair
        return clause + (self.time(tense) if self.chance(0.5) else self.place())

    def how_many(self) -> Pair:
        """combien de ... est-ce que ... / how many ..."""
        self.tags.add("question")
        noun = self.noun([noun for noun in THINGS + FOODS + ANIMALS if noun.countable])
        verbs = [v for v in TRANSITIVE if v.tags & noun.tags and v.infinitive not in ("aimer", "détester")]
        tense = self.pick(("past", "past", "vouloir", "near"), lambda t: f"many {t}", 2)
        subject = self.subject(tense)
        verb = self.verb(verbs, tense, subject)
        adjectives = [a for a in self.adjectives(noun, 0.4) if not a.before]
        head = self.phrase(noun, True, "any", adjectives).text
        clause = self.clause(subject, verb, Action(tense), agreement=(noun.gender, True) if tense == "past" else None)
        english = words("how many", head.en.removeprefix("any "), clause.question)
        text = Pair(words("combien", head.fr, "est-ce que", clause.pair.fr), english)
        return text + self.time(tense) if self.chance(0.5) else text

    def which_question(self) -> Pair:
        """quel livre est-ce que vous avez lu / which book did you read."""
        self.tags.add("question")
        noun = self.noun(THINGS + PLACES + PEOPLE)
        verbs = [v for v in TRANSITIVE if v.tags & noun.tags]
        tense = self.pick(("past", "past", "vouloir", "near", "pouvoir"), lambda t: f"which {t}", 2)
        subject = self.subject(tense)
        verb = self.verb(verbs, tense, subject)
        head = self.phrase(noun, False, "which", self.adjectives(noun, 0.5)).text
        clause = self.clause(subject, verb, Action(tense), agreement=(noun.gender, False) if tense == "past" else None)
        text = Pair(words(head.fr, "est-ce que", clause.pair.fr), words(head.en, clause.question))
        return text + self.time(tense) if self.chance(0.6) else text

    def order(self) -> Pair:
        """Imperatives: donnez-moi ..., ne fermez pas ..., n'oubliez pas de ..., with a reason, a place or please."""
        self.tags.add("imperative")
        make = self.pick(
            (self.give_me, self.plain_order, self.do_not, self.directions), lambda m: f"order {m.__name__}", 2
        )
        text = make()
        roll = self.rng.random()
        if roll < 0.4:
            return text + ("s'il vous plaît", "please")
        if roll < 0.75:
            return text + ("parce que", "because") + self.state("present").pair
        return text + ("avant de", "before") + self.infinitive("ing", rate=0.3, pronoun=False)

    def give_me(self) -> Pair:
        verb = self.verb([verb for verb in GIVING if verb.infinitive != "vendre"], "infinitive")
        who = self.pick((("moi", "me"), ("nous", "us"), ("lui", "him"), ("leur", "them")), lambda p: f"give {p[0]}", 2)
        thing = self.object(self.noun(THINGS + FOODS, *verb.tags), rate=0.5)
        self.tags.add("dative pronoun")
        return Pair(f"{verb.present['vous']}-{who[0]}", f"{verb.base} {who[1]}") + thing.text

    def plain_order(self) -> Pair:
        verb = self.verb(TRANSITIVE, "infinitive")
        text = Pair(verb.present["vous"], verb.english("base")) + self.complement(verb, rate=0.5).text
        return text + self.place() if self.chance(0.3) else text

    def do_not(self) -> Pair:
        self.tags.add("negation ne ... pas")
        if self.chance(0.5):
            return Pair("n'oubliez pas de", "do not forget to") + self.infinitive(rate=0.4)
        verb = self.verb(TRANSITIVE, "infinitive")
        return (
            Pair(words("ne", verb.present["vous"], "pas"), f"do not {verb.english('base')}")
            + self.complement(verb, True, 0.5).text
        )

    def directions(self) -> Pair:
        """prenez la deuxième rue à gauche; tournez à droite devant la gare."""
        side = self.pick((("à gauche", "left"), ("à droite", "right")), lambda s: f"side {s[0]}", 2)
        roll = self.rng.random()
        if roll < 0.4:
            number = self.rng.randint(1, 6)
            ordinal = ("première", "deuxième", "troisième", "quatrième", "cinquième", "sixième")[number - 1]
            noun = self.pick((("rue", "street"), ("porte", "door")), lambda n: f"ordinal {n[0]}", 2)
            self.tags.add("number")
            return Pair(
                f"prenez LA {ordinal} {noun[0]} {side[0]}",
                f"take the {numerals.english_ordinal(number)} {noun[1]} on the {side[1]}",
            )
        if roll < 0.75:
            return Pair(f"tournez {side[0]}", f"turn {side[1]}") + self.beside()
        return Pair("allez tout droit jusqu'à", "go straight to") + self.place_phrase("go").text

    def greeting(self) -> Pair:
        """bonjour je m'appelle ...: names, professions, where one lives."""
        self.tags.add("greeting")
        hello = self.pick(
            (("bonjour", "hello"), ("bonsoir", "good evening"), ("salut", "hi"), ("bienvenue", "welcome")),
            lambda h: f"hello {h[0]}",
            2,
        )
        hello = Pair(*hello)
        if hello.en == "welcome":
            return hello + ("à", "to") + self.place_phrase("go", 0.4).text + self.named(self.name())
        roll = self.rng.random()
        name = self.name()
        if roll < 0.6:
            head = hello + (f"je m'appelle {name.fr}", f"my name is {name.en}") + ("et", "and")
            if self.chance(0.4):
                jobs = [
                    n
                    for n in PEOPLE
                    if n.gender == name.gender and n.fr not in ("garçon", "homme", "femme", "enfant", "roi", "reine")
                ]
                job = self.noun(jobs)
                city = self.pick(CITIES, lambda city: f"city {city[0]}")
                live = (f"et j'habite à {city[0]}", f"and i live in {city[1]}")
                return (
                    hello
                    + (f"je m'appelle {name.fr}", f"my name is {name.en}")
                    + (f"je suis {job.fr}", f"i am a {job.en}")
                    + (live if self.chance(0.6) else self.place())
                )
            return head + self.event("present", PRONOUNS["je"], rate=0.4).pair
        if roll < 0.8:
            return hello + self.named(name) + self.event(self.tense(), rate=0.3).pair
        kin = self.noun([noun for noun in KIN if noun.gender == name.gender])
        other = self.person(kin, rate=0.3)
        text = hello + other.text + (f"s'appelle {name.fr}", f"is called {name.en}") + ("et", "and")
        return text + self.event("present", PRONOUNS["elle" if name.gender == "f" else "il"], rate=0.3).pair

    def named(self, name: Subject) -> Pair:
        return Pair(name.fr, name.en)

    def thanks(self) -> Pair:
        """merci pour ..., je voudrais ..., au revoir."""
        self.tags.add("greeting")
        roll = self.rng.random()
        noun = self.noun(OBJECTS_TO_ASK)
        thing = self.object(noun, rate=0.6)
        if roll < 0.35:
            name = self.name()
            adjectives = [a for a in self.adjectives(noun, 0.7) if "mass" not in noun.tags or not a.before]
            gift = self.phrase(noun, noun.countable and self.chance(0.4), "the", adjectives)
            return Pair(f"merci {name.fr} pour", f"thank you {name.en} for") + gift.text + self.recent()
        subject = PRONOUNS[self.pick(("je", "nous"), lambda p: f"would {p}", 2)]
        would = Pair("je voudrais", "i would like") if subject.fr == "je" else Pair("nous voudrions", "we would like")
        if roll < 0.7:
            text = would + thing.text
            return (
                text + ("s'il vous plaît", "please")
                if self.chance(0.4)
                else text + ("pour", "for") + self.person(rate=0.2).text
            )
        text = would + ("", "to") + self.infinitive(rate=0.4)
        return text + self.time("future") if self.chance(0.6) else text + ("avec", "with") + self.person(rate=0.2).text

    def company(self) -> Pair:
        """Somebody does something with somebody, somewhere."""
        tense = self.tense()
        subject = self.subject(tense)
        verbs = [
            v
            for v in INTRANSITIVE
            if v.infinitive
            in (
                "travailler",
                "étudier",
                "chanter",
                "danser",
                "jouer",
                "marcher",
                "manger",
                "attendre",
                "rester",
                "habiter",
                "courir",
                "crier",
                "voyager",
            )
        ]
        verb = self.verb(verbs, tense, subject)
        person = self.person(rate=0.15, plural_rate=0.3).text if self.chance(0.7) else Pair(*(self.name().fr,) * 2)
        clause = self.clause(subject, verb, self.action(tense)).pair + ("avec", "with") + person + self.place_of(verb)
        return self.around(clause, tense) if self.chance(0.3) else clause
