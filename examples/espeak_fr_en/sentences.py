"""Constructions that join clauses: because, when, if, that, relative clauses, comparatives and the like."""

from __future__ import annotations

from .clauses import Clauses
from .lexicon import FOODS, PEOPLE, PLACES, THINGS, Adjective, Noun
from .morphology import Action, Subject, be, words
from .phrases import NounPhrase, Pair
from .verbs import INTRANSITIVE, OPINION, TRANSITIVE


class Sentences(Clauses):
    """Statements made of clauses."""

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
        head = self.clause(
            subject,
            verb,
            Action("past" if self.chance(0.5) else "present") if subject.fr not in ("ils", "elles") else Action("past"),
        )
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
        if "colour" in adjective.tags or adjective.en in (
            "broken",
            "empty",
            "round",
            "french",
            "lost",
            "magnificent",
            "delicious",
        ):
            degree = ("", "")
        return self.be_clause(subject, "present", words(degree[0], french), words(degree[1], adjective.en)).pair

    def on_something(self) -> Pair:
        """sur la table, sous le lit, dans le sac, entre la lampe et le miroir."""
        self.tags.add("place")
        kind = self.pick(
            (("sur", "on"), ("sous", "under"), ("dans", "in"), ("entre", "between")), lambda p: f"on {p[0]}", 2
        )
        if kind[0] == "dans":
            noun = self.noun(THINGS + PLACES, "openable", "in")
            if noun.en in ("door", "window", "street", "village"):
                noun = self.noun(PLACES, "room")
            return Pair(*kind) + self.phrase(noun, False, "the", self.adjectives(noun, 0.25)).text
        surfaces = [n for n in THINGS if n.tags & {"surface"} or (kind[0] != "sur" and "furniture" in n.tags)]
        noun = self.noun(surfaces)
        place = (
            Pair(*kind) + self.phrase(noun, False, "the", self.adjectives(noun, 0.3 if kind[0] != "entre" else 0)).text
        )
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
        return self.be_clause(
            subject, "past" if self.chance(0.2) else "present", french, words(english, link, second.text.en)
        ).pair

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
            others = [
                n
                for n in pool
                if n != noun
                and (n.countable or not plural)
                and n.tags & noun.tags - {"thing"}
                and adjective.tags & n.tags
            ]
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
