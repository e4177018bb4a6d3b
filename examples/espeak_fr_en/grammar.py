"""The constructions of the corpus: each method makes one sentence in both languages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from . import numerals
from .clauses import OBJECTS, Clause, Clauses
from .lexicon import ANIMALS, CITIES, DAYS, FOODS, KIN, MASS, PEOPLE, PLACES, THINGS, Adjective, Noun
from .morphology import Action, Subject, agree, be, english_join, french_join, words
from .phrases import PRONOUNS, NounPhrase, Pair
from .verbs import AVOIR, ETRE, GIVING, INTRANSITIVE, OPINION, TRANSITIVE, VERB_LINKS

MIN_WORDS, MAX_WORDS = 5, 16  # English words in a sentence
BORN = {"je": "was", "il": "was", "nous": "were", "vous": "were", "ils": "were"}


@dataclass(frozen=True)
class Sentence:
    """A sentence in both languages, the construction that made it and everything tagged in it."""

    french: str
    english: str
    construction: str
    tags: tuple[str, ...]


class Grammar(Clauses):
    """Draws sentences, constructions in turn by weight, words least-used first."""

    def __init__(self, seed: int | str) -> None:
        super().__init__(seed)
        self.made: Counter[str] = Counter()
        self.constructions: dict[str, tuple[Callable[[], Pair], float]] = {
            name: (getattr(self, name), weight) for name, weight in WEIGHTS.items()
        }

    def sentence(self) -> Sentence:
        """One sentence of MIN_WORDS..MAX_WORDS English words; the construction furthest behind its share is next."""
        share = {name: (self.made[name] + self.rng.random()) / weight for name, (_, weight) in self.constructions.items()}
        name = min(share, key=lambda name: share[name])
        self.made[name] += 1
        while True:
            self.tags = set()
            pair = self.constructions[name][0]()
            english = english_join(pair.en)
            if MIN_WORDS <= len(english.split()) <= MAX_WORDS and self.chance(_keep(len(english.split()))):
                return Sentence(french_join(pair.fr), english, name.replace("_", " "), tuple(sorted(self.tags)))

    def tense(self) -> str:
        tenses = ("present", "present", "past", "past", "future", "near", "progressive", "pouvoir", "devoir", "vouloir")
        return self.pick(tenses, lambda tense: f"tense {tense}", 2)

    def around(self, clause: Pair, tense: str) -> Pair:
        """The clause with a time before or after it."""
        time = self.time(tense)
        return time + clause if self.chance(0.45) else clause + time

    # ---- statements ----------------------------------------------------------------------------------------------------
    def event_with_time(self) -> Pair:
        tense = self.tense()
        return self.around(self.event(tense).pair, tense)

    def event_with_place(self) -> Pair:
        """An event, its place and its time."""
        tense = self.tense()
        subject = self.subject(tense)
        verb = self.verb(TRANSITIVE, tense, subject)
        action = self.action(tense)
        obj = self.complement(verb, bool(action.negation), 0.4, tense)
        clause = self.clause(subject, verb, action, obj=obj.text).pair + self.place()
        return self.around(clause, tense) if self.chance(0.35) else clause

    def because(self) -> Pair:
        tense = self.pick(("present", "past", "progressive", "vouloir"), lambda t: f"because {t}", 2)
        reason = self.state("past" if tense == "past" else "present").pair
        return self.event(tense).pair + ("parce que", "because") + reason

    def when(self) -> Pair:
        """quand: a habit in the present, or two futures (English: present, then will)."""
        if self.chance(0.5):
            first, second = self.state("present").pair, self.event("present").pair
        else:
            subject = self.subject("future")
            verb = self.verb([v for v in INTRANSITIVE if v.tags & {"arrive", "from", "enter"}], "present", subject)
            place = self.place_of(verb)
            french = self.clause(subject, verb, Action("future"), obj=place).pair.fr
            english = self.clause(subject, verb, Action("present"), obj=place).pair.en
            first, second = Pair(french, english), self.event("future").pair
        return Pair("quand", "when") + first + second if self.chance(0.6) else second + ("quand", "when") + first

    def condition(self) -> Pair:
        """si with the present, then the future or a modal verb."""
        first = self.event("present", rate=0.3).pair if self.chance(0.5) else self.state("present").pair
        second = self.event(self.pick(("future", "pouvoir", "devoir"), lambda t: f"if {t}", 2), rate=0.4).pair
        return Pair("si", "if") + first + second

    def opinion(self) -> Pair:
        """penser que, dire que ... and a clause."""
        subject = self.subject(pronouns=("je", "nous", "vous", "il", "elle"))
        verbs = [verb for verb in OPINION if verb.infinitive != "promettre"]
        verb = self.verb(verbs, "present", subject)
        past = verb.infinitive in ("dire", "expliquer") and self.chance(0.5)
        head = self.clause(subject, verb, Action("past" if past else "present")).pair + ("que", "that")
        if past:
            return head + self.state("past").pair
        tense = self.tense()
        return head + (self.state("present").pair if self.chance(0.35) else self.event(tense, rate=0.35).pair)

    def promise(self) -> Pair:
        """promettre que and the future; oublier que, savoir que and a date or a price."""
        subject = self.subject("past")
        verb = next(verb for verb in OPINION if verb.infinitive == "promettre")
        head = self.clause(subject, verb, Action("past" if self.chance(0.5) else "present") if subject.fr not in ("ils", "elles") else Action("past"))
        return head.pair + ("que", "that") + self.event("future", rate=0.4).pair

    def relative_subject(self) -> Pair:
        """le garçon qui a perdu son ...: a relative clause with qui, then what its subject does."""
        noun = self.noun(PEOPLE)
        person = self.as_subject(self.phrase(noun, noun.countable and self.chance(0.4), "the"))
        tense = self.pick(("past", "present", "past"), lambda t: f"relative {t}", 2)
        inner = self.event(tense, person, rate=0.4, simple=True).predicate
        head = Pair(person.fr, person.en) + ("qui", "who") + inner
        whole = Subject(head.fr, head.en, person.person, person.gender)
        if self.chance(0.35):
            main = self.feeling("present", whole)
        else:
            verbs = [v for v in INTRANSITIVE if v.tags & {"home", "at", "walk", "from"} and v.infinitive != "attendre"]
            verb = self.verb(verbs, "present", whole)
            main = self.clause(whole, verb, Action("present"), obj=self.place_of(verb))
        return main.pair

    def relative_object(self) -> Pair:
        """le livre que vous avez acheté est sur la table: the participle agrees with the object before it."""
        noun = self.noun(THINGS[: len(THINGS) - 2] + FOODS)
        plural = noun.countable and self.chance(0.45)
        head = self.phrase(noun, plural, "the", self.adjectives(noun, 0.35))
        verbs = [v for v in TRANSITIVE if v.tags & noun.tags and v.infinitive not in ("aimer", "détester", "quitter")]
        subject = self.subject("past")
        tense = "past" if self.chance(0.75) else "vouloir"
        verb = self.verb(verbs, tense, subject)
        agreement = (noun.gender, plural) if tense == "past" else None
        inner = self.clause(subject, verb, Action(tense), agreement=agreement).pair
        text = head.text + ("que", "that") + inner
        whole = Subject(text.fr, text.en, "ils" if plural else "il", noun.gender)
        return self.situation(whole, head)

    def situation(self, subject: Subject, phrase: NounPhrase) -> Pair:
        """... est sur la table / est cassé: where a thing is, or how it is."""
        if self.chance(0.55):
            place = self.place() if phrase.noun.tags & {"vehicle", "furniture"} else self.on_something()
            return Pair(subject.fr, subject.en) + (("sont" if subject.plural else "est"), be(subject)) + place
        adjective = self.fitting(phrase.noun)
        if adjective is None:
            return Pair(subject.fr, subject.en) + (("sont" if subject.plural else "est"), be(subject)) + self.place()
        french = adjective.french(phrase.gender, phrase.plural)
        degree = self.pick((("", ""), ("très", "very"), ("trop", "too")), lambda e: f"degree {e[0]}", 2)
        if "colour" in adjective.tags or adjective.en in ("broken", "empty", "round", "french", "lost", "magnificent", "delicious"):
            degree = ("", "")
        return self.be_clause(subject, "present", words(degree[0], french), words(degree[1], adjective.en)).pair

    def on_something(self) -> Pair:
        """sur la table, sous le lit, dans le sac, entre la lampe et le miroir."""
        self.tags.add("place")
        kind = self.pick((("sur", "on"), ("sous", "under"), ("dans", "in"), ("entre", "between")), lambda p: f"on {p[0]}", 2)
        if kind[0] == "dans":
            noun = self.noun(THINGS + PLACES, "openable", "in")
            if noun.en in ("door", "window", "street", "village"):
                noun = self.noun(PLACES, "room")
            return Pair(*kind) + self.phrase(noun, False, "the", self.adjectives(noun, 0.25)).text
        surfaces = [n for n in THINGS if n.tags & {"surface"} or (kind[0] != "sur" and "furniture" in n.tags)]
        noun = self.noun(surfaces)
        place = Pair(*kind) + self.phrase(noun, False, "the", self.adjectives(noun, 0.3 if kind[0] != "entre" else 0)).text
        if kind[0] == "entre":
            other = self.noun([n for n in THINGS if n.tags & {"furniture", "house"} and n != noun])
            place = place + ("et", "and") + self.phrase(other, False, "the").text
        return place

    def comparison(self) -> Pair:
        """plus ... que, moins ... que, aussi ... que."""
        kind = self.pick(("plus", "plus", "moins", "aussi"), lambda k: f"comparison {k}", 2)
        first, adjective, second = self.compared()
        subject = self.as_subject(first)
        if kind == "plus":
            english = adjective.comparative or f"more {adjective.en}"
        else:
            english = f"less {adjective.en}" if kind == "moins" else f"as {adjective.en}"
        french = words(kind, adjective.french(first.gender, first.plural), "que", second.text.fr)
        link = "as" if kind == "aussi" else "than"
        return self.be_clause(subject, "past" if self.chance(0.2) else "present", french, words(english, link, second.text.en)).pair

    def compared(self) -> tuple[NounPhrase, Adjective, NounPhrase]:
        """Two noun phrases of the same kind and an adjective that suits both."""
        if self.chance(0.3):
            first, second = self.person(rate=0.15), self.person(rate=0.15)
            while second.noun == first.noun:
                second = self.person(rate=0.15)
            return first, self.fitting(first.noun, comparative=True), second
        pools = [THINGS, THINGS, PLACES, FOODS]
        while True:
            pool = self.rng.choice(pools)
            noun = self.noun(pool)
            adjective = self.fitting(noun, comparative=True)
            if adjective is None:
                continue
            plural = noun.countable and self.chance(0.3)
            first = self.compared_noun(noun, plural)
            others = [n for n in pool if n != noun and (n.countable or not plural) and n.tags & noun.tags - {"thing"} and adjective.tags & n.tags]
            second = self.compared_noun(self.noun(others), plural) if others else None
            if second is not None:
                return first, adjective, second

    def compared_noun(self, noun: Noun, plural: bool) -> NounPhrase:
        place = "place" in noun.tags
        if self.chance(0.3) and not plural and not place:
            return self.owned(noun)
        determiners = ("the", "this") if place else ("the", "this", "my", "your", "our")
        determiner = self.pick(determiners, lambda d: f"compare {d}", 2)
        return self.phrase(noun, plural, determiner, [a for a in self.adjectives(noun, 0.5) if "colour" in a.tags])

    def there_is(self) -> Pair:
        """il y a, il n'y a pas de, il y avait."""
        past = self.chance(0.3)
        noun = self.noun(THINGS[:-2] + FOODS + ANIMALS_AND_PEOPLE)
        plural = noun.countable and self.chance(0.8)
        place = self.on_something() if noun.tags & {"object", "food", "readable"} else self.place()
        if self.chance(0.2):
            mass = self.noun(MASS)
            self.tags.add("negation ne ... pas")
            head = Pair("il n'y avait" if past else "il n'y a", "there was not" if past else "there is not")
            rest = self.pick((("pas de", "any"), ("plus de", "no more")), lambda p: f"none {p[0]}", 2)
            if rest[0] == "plus de":
                head = Pair(head.fr, "there was" if past else "there is")
            place = self.noun(PLACES, "shop")
            where = Pair("dans", "in") if "in" in place.tags else Pair("à", "at")
            return head + rest + (mass.fr, mass.en) + where + self.phrase(place, False, "the", self.adjectives(place, 0.5)).text
        adjectives = [a for a in self.adjectives(noun, 0.5) if not (plural and a.before)]
        number = str(self.count(20 if "person" in noun.tags else 100)) if self.chance(0.6) else "some"
        thing = self.phrase(noun, plural, number if plural else "a", adjectives)
        english = ("there were" if past else "there are") if plural else ("there was" if past else "there is")
        return Pair("il y avait" if past else "il y a", english) + thing.text + place

    def cost(self) -> Pair:
        """What something costs, and what somebody paid for it."""
        self.tags.add("price")
        price = Pair(*numerals.price(self.rng.randint(2, 99), self.rng.choice((0, 0, 10, 20, 30, 40, 50, 60, 80))))
        if self.chance(0.5):
            return self.paid(price)
        noun = self.noun(THINGS[:-2] + FOODS)
        plural = noun.countable and self.chance(0.5)
        thing = self.phrase(noun, plural, self.pick(("the", "this", "the"), lambda d: f"cost {d}", 2), self.adjectives(noun, 0.7))
        tense = self.pick(("present", "past", "future"), lambda t: f"cost {t}", 2)
        forms = {"present": ("coûtent" if plural else "coûte", "cost" if plural else "costs"),
                 "past": ("ont coûté" if plural else "a coûté", "cost"),
                 "future": ("coûteront" if plural else "coûtera", "will cost")}  # fmt: skip
        return thing.text + forms[tense] + price

    def paid(self, price: Pair) -> Pair:
        """payer or dépenser: elle a payé douze euros pour la robe."""
        subject = self.subject("past")
        verb = self.pick((("payé", "paid"), ("dépensé", "spent")), lambda v: f"paid {v[0]}", 2)
        noun = self.noun(THINGS[:-2] + FOODS)
        thing = self.object(noun, rate=0.5)
        self.tags.add("past")
        return Pair(words(subject.fr, AVOIR[subject.person], verb[0]), words(subject.en, verb[1])) + price + (
            words("pour", thing.text.fr), words("for", thing.text.en)
        )  # fmt: skip

    def belongings(self) -> Pair:
        """avoir: j'ai trois frères et une voiture rouge."""
        subject = self.subject(pronouns=("je", "nous", "vous", "il", "elle"))
        verb = "have" if not subject.third else "has"
        first = self.own_thing()
        second = self.own_thing()
        while second.noun == first.noun:
            second = self.own_thing()
        text = Pair(words(subject.fr, AVOIR[subject.person]), words(subject.en, verb)) + first.text
        return text + ("et", "and") + second.text

    def own_thing(self) -> NounPhrase:
        people = [noun for noun in KIN if noun.fr in ("frère", "sœur", "fils", "fille", "cousin", "oncle", "tante")]
        noun = self.noun(people + THINGS[:-2] + ANIMALS)
        plural = noun.countable and self.chance(0.6)
        return self.phrase(noun, plural, str(self.count(20)) if plural else "a", self.adjectives(noun, 0.5))

    def age_and_birth(self) -> Pair:
        """avoir ... ans / to be ... years old; né le ... / born on the ..."""
        subject = self.subject(pronouns=("je", "nous", "vous", "il", "elle"))
        self.tags.add("number")
        if self.chance(0.45):
            number = self.rng.randint(2, 99)
            old = Pair(words(subject.fr, AVOIR[subject.person], numerals.french_number(number), "ans"),
                       words(subject.en, be(subject), numerals.english_number(number), "years old"))  # fmt: skip
            other = Pair(*self.pick((("et", "and"), ("mais", "but")), lambda p: f"link {p[0]}", 2))
            return old + other + self.event("present", PRONOUNS["il"] if subject.gender == "m" and subject.third else None, rate=0.3).pair
        born = agree("né", subject.gender, subject.plural)
        head = Pair(words(subject.fr, ETRE[subject.person], born), words(subject.en, BORN[subject.person], "born"))
        city = self.pick(CITIES, lambda city: f"city {city[0]}")
        when = self.date()
        self.tags.add("date")
        if self.chance(0.4):
            return head + (f"à {city[0]}", f"in {city[1]}") + when
        years = (self.rng.randint(1930, 1999), self.rng.randint(2001, 2012))
        return head + when + numerals.year(self.rng.choice(years))

    def what_time(self) -> Pair:
        """il est trois heures et demie et le musée est fermé."""
        self.tags.add("time of day")
        head = Pair("il est", "it is") + numerals.random_clock(self.rng)
        link = Pair(*self.pick((("et", "and"), ("mais", "but")), lambda p: f"link {p[0]}", 2))
        second = self.state("present").pair if self.chance(0.5) else self.event(self.tense(), rate=0.3).pair
        return head + link + second

    def today(self) -> Pair:
        """aujourd'hui c'est lundi ...: days and dates."""
        self.tags.add("date")
        day = self.pick(DAYS, lambda day: f"day {day[0]}")
        if self.chance(0.5):
            head = Pair(f"aujourd'hui c'est {day[0]}", f"today is {day[1]}")
        else:
            date = self.date()
            head = Pair(f"nous sommes {date.fr}", f"it is {date.en.removeprefix('on ')}")
        return head + ("et", "and") + self.event(self.tense(), rate=0.4).pair

    def timetable(self) -> Pair:
        """le train pour lyon part à huit heures vingt."""
        self.tags.add("time of day")
        city = self.pick(CITIES, lambda city: f"city {city[0]}")
        vehicle = self.vehicle()
        leaves = self.pick(
            (("part", "leaves"), ("est parti", "left"), ("partira", "will leave"), ("arrive", "arrives"),
             ("est arrivé", "arrived"), ("arrivera", "will arrive")), lambda v: f"leaves {v[0]}", 2,
        )  # fmt: skip
        way = Pair(f"pour {city[0]}", f"to {city[1]}") if leaves[1].startswith(("leave", "left", "will leave")) else Pair(f"de {city[0]}", f"from {city[1]}")
        text = vehicle + way + leaves + (Pair("à", "at") + numerals.random_clock(self.rng))
        if self.chance(0.5):
            tense = {"part": "present", "arrive": "present", "partira": "future", "arrivera": "future"}.get(leaves[0], "past")
            day = self.pick(DAYS, lambda day: f"day {day[0]}")
            extra = {"present": (f"chaque {day[0]}", f"every {day[1]}"), "future": (f"{day[0]} prochain", f"next {day[1]}"),
                     "past": (f"{day[0]} dernier", f"last {day[1]}")}[tense]  # fmt: skip
            return text + extra
        return text

    def purpose(self) -> Pair:
        """aller ... pour acheter ... / go ... to buy ..."""
        tense = self.pick(("past", "near", "present", "future", "devoir", "vouloir"), lambda t: f"purpose {t}", 2)
        verbs = [verb for verb in INTRANSITIVE if verb.infinitive in ("aller", "venir")]
        subject = self.subject(tense)
        verb = self.verb(verbs[1:] if tense == "near" else verbs, tense, subject)  # "je vais aller" says little
        head = self.clause(subject, verb, Action(tense), obj=self.place("go")).pair
        return head + ("pour", "to") + self.infinitive(rate=0.4)

    def before_and_without(self) -> Pair:
        """avant de, sans, au lieu de with an infinitive / -ing."""
        link = self.pick((("avant de", "before"), ("sans", "without"), ("au lieu de", "instead of")), lambda p: f"link {p[0]}", 2)
        tense = self.tense()
        clause = self.event(tense, rate=0.3, simple=True).pair
        return clause + link + self.infinitive("ing", rate=0.3, pronoun=False)

    def like_to(self) -> Pair:
        """aimer, préférer, commencer à, essayer de ... and an infinitive."""
        links = [link for link in VERB_LINKS]
        tense = self.pick(("present", "past", "future", "present"), lambda t: f"like {t}", 2)
        if tense != "present":
            links = [link for link in links if link[0].infinitive in ("essayer", "commencer", "décider", "oublier", "apprendre")]
        verb, french_link = self.pick(links, lambda link: f"link verb {link[0].base} {tense}", 2)
        subject = self.subject(tense)
        if subject.plural and tense == "present" and subject.pronoun and subject.person == "ils":
            subject = PRONOUNS["nous"]
        action = Action(tense, "pas") if self.chance(0.15) else Action(tense)
        head = self.clause(subject, verb, action).pair + (french_link, "to")
        text = head + self.infinitive(rate=0.5)
        return self.around(text, tense) if self.chance(0.25) else text

    def with_antecedent(self) -> Pair:
        """marie a acheté une robe mais elle ne la porte jamais."""
        self.tags.add("object pronoun")
        subject = self.name() if self.chance(0.6) else self.as_subject(self.person(rate=0))
        again = PRONOUNS["elle" if subject.gender == "f" else "il"]
        noun = self.noun(THINGS[:-2])
        if self.chance(0.3):
            subject = again = PRONOUNS[self.pick(("je", "nous", "vous"), lambda p: f"pronoun {p}", 2)]
        tense = "past" if self.chance(0.6) else "present"
        verbs = [v for v in TRANSITIVE if v.tags & noun.tags]
        first_verb = self.verb(verbs, tense, subject)
        obj = self.object(noun, rate=0.35, definite=tense == "present")
        first = self.clause(subject, first_verb, Action(tense), obj=obj.text).pair
        clitic, english = obj.pronoun()
        others = [v for v in verbs if v != first_verb and v.pronoun != "person"]
        second_tense = self.pick(("present", "vouloir", "near", "pouvoir"), lambda t: f"antecedent {t}", 2)
        verb = self.verb(others, second_tense, again)
        action = self.action(second_tense)
        link = ("mais", "but") if action.negation or self.chance(0.3) else ("et", "and")
        return first + link + self.clause(again, verb, action, clitic, Pair("", english)).pair

    def coordination(self) -> Pair:
        """Two clauses joined by et, mais or donc."""
        link = self.pick((("et", "and"), ("mais", "but"), ("donc", "so")), lambda p: f"link {p[0]}", 2)
        if link[0] == "donc":
            tense = self.pick(("pouvoir", "devoir", "near", "future"), lambda t: f"so {t}", 2)
            return self.state("present").pair + link + self.event(tense, rate=0.4).pair
        tense = self.tense()
        return self.event(tense, rate=0.2, simple=True).pair + link + self.event(tense, rate=0.2).pair

    def nothing_and_nobody(self) -> Pair:
        """ne ... rien, ne ... personne."""
        subject = self.subject(pronouns=("je", "nous", "vous", "il", "elle"))
        tense = self.pick(("present", "past", "future"), lambda t: f"nothing {t}", 2)
        if self.chance(0.5):
            self.tags.add("negation ne ... rien")
            verbs = [v for v in TRANSITIVE if "thing" in v.tags or v.infinitive in ("manger", "boire", "préparer")]
            verb = self.verb(verbs, tense, subject)
            clause = self.clause(subject, verb, Action(tense, "rien"), obj=Pair("", "nothing")).pair
        else:
            self.tags.add("negation ne ... personne")
            verb = self.verb([v for v in TRANSITIVE if v.pronoun == "person"], tense, subject)
            clause = self.clause(subject, verb, Action(tense, "personne"), obj=Pair("personne", "nobody")).pair
        text = clause + self.place()
        return self.around(text, tense) if self.chance(0.5) else text

    # ---- questions and orders -------------------------------------------------------------------------------------------
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
        options = (("où", "where"), ("quand", "when"), ("pourquoi", "why"), ("comment", "how"), ("à quelle heure", "at what time"))
        french, english = self.pick(options, lambda option: f"ask {option[0]}", 2)
        tense = self.pick(("past", "present", "future", "near", "pouvoir", "vouloir", "devoir"), lambda t: f"ask {t}", 2)
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
        make = self.pick((self.give_me, self.plain_order, self.do_not, self.directions), lambda m: f"order {m.__name__}", 2)
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
        return Pair(words("ne", verb.present["vous"], "pas"), f"do not {verb.english('base')}") + self.complement(verb, True, 0.5).text

    def directions(self) -> Pair:
        """prenez la deuxième rue à gauche; tournez à droite devant la gare."""
        side = self.pick((("à gauche", "left"), ("à droite", "right")), lambda s: f"side {s[0]}", 2)
        roll = self.rng.random()
        if roll < 0.4:
            number = self.rng.randint(1, 6)
            ordinal = ("première", "deuxième", "troisième", "quatrième", "cinquième", "sixième")[number - 1]
            noun = self.pick((("rue", "street"), ("porte", "door")), lambda n: f"ordinal {n[0]}", 2)
            self.tags.add("number")
            return Pair(f"prenez LA {ordinal} {noun[0]} {side[0]}", f"take the {numerals.english_ordinal(number)} {noun[1]} on the {side[1]}")
        if roll < 0.75:
            return Pair(f"tournez {side[0]}", f"turn {side[1]}") + self.beside()
        return Pair("allez tout droit jusqu'à", "go straight to") + self.place_phrase("go").text

    # ---- talk -----------------------------------------------------------------------------------------------------------
    def greeting(self) -> Pair:
        """bonjour je m'appelle ...: names, professions, where one lives."""
        self.tags.add("greeting")
        hello = self.pick((("bonjour", "hello"), ("bonsoir", "good evening"), ("salut", "hi"), ("bienvenue", "welcome")), lambda h: f"hello {h[0]}", 2)
        hello = Pair(*hello)
        if hello.en == "welcome":
            return hello + ("à", "to") + self.place_phrase("go", 0.4).text + self.named(self.name())
        roll = self.rng.random()
        name = self.name()
        if roll < 0.6:
            head = hello + (f"je m'appelle {name.fr}", f"my name is {name.en}") + ("et", "and")
            if self.chance(0.4):
                jobs = [n for n in PEOPLE if n.gender == name.gender and n.fr not in ("garçon", "homme", "femme", "enfant", "roi", "reine")]
                job = self.noun(jobs)
                city = self.pick(CITIES, lambda city: f"city {city[0]}")
                live = (f"et j'habite à {city[0]}", f"and i live in {city[1]}")
                return hello + (f"je m'appelle {name.fr}", f"my name is {name.en}") + (f"je suis {job.fr}", f"i am a {job.en}") + (live if self.chance(0.6) else self.place())
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
            return text + ("s'il vous plaît", "please") if self.chance(0.4) else text + ("pour", "for") + self.person(rate=0.2).text
        text = would + ("", "to") + self.infinitive(rate=0.4)
        return text + self.time("future") if self.chance(0.6) else text + ("avec", "with") + self.person(rate=0.2).text

    def company(self) -> Pair:
        """Somebody does something with somebody, somewhere."""
        tense = self.tense()
        subject = self.subject(tense)
        verbs = [v for v in INTRANSITIVE if v.infinitive in
                 ("travailler", "étudier", "chanter", "danser", "jouer", "marcher", "manger", "attendre", "rester", "habiter", "courir", "crier", "voyager")]  # fmt: skip
        verb = self.verb(verbs, tense, subject)
        person = self.person(rate=0.15, plural_rate=0.3).text if self.chance(0.7) else Pair(*(self.name().fr,) * 2)
        clause = self.clause(subject, verb, self.action(tense)).pair + ("avec", "with") + person + self.place_of(verb)
        return self.around(clause, tense) if self.chance(0.3) else clause


ANIMALS_AND_PEOPLE = ANIMALS + PEOPLE
OBJECTS_TO_ASK = [noun for noun in OBJECTS if noun.tags & {"thing", "food", "mass"}]
WEIGHTS: dict[str, float] = {
    "event_with_time": 6, "event_with_place": 5, "because": 5, "when": 4, "condition": 4, "opinion": 5, "promise": 1.5,
    "relative_subject": 4, "relative_object": 5, "comparison": 5, "there_is": 4, "cost": 4, "belongings": 2.5,
    "age_and_birth": 2.5, "what_time": 3, "today": 2, "timetable": 2, "purpose": 4, "before_and_without": 3, "like_to": 4,
    "with_antecedent": 5, "coordination": 4, "nothing_and_nobody": 2.5, "yes_no_question": 4, "where_when_why": 4,
    "who_question": 2.5, "how_many": 2.5, "which_question": 3, "order": 5, "greeting": 3, "thanks": 3, "company": 3,
}  # fmt: skip


def _keep(length: int) -> float:
    """The share of sentences kept at a length: favours 8 to 12 words."""
    return {5: 0.3, 6: 0.5, 7: 0.7, 13: 0.8, 14: 0.6, 15: 0.4, 16: 0.3}.get(length, 1.0)
