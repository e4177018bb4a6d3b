"""Constructions of facts and plans: what there is, prices, dates, times, purposes, likes."""

from __future__ import annotations

from . import numerals
from .clauses import Clauses
from .lexicon import ANIMALS, CITIES, DAYS, FOODS, KIN, MASS, PEOPLE, PLACES, THINGS
from .morphology import Action, agree, be, words
from .phrases import PRONOUNS, NounPhrase, Pair
from .verbs import AVOIR, ETRE, INTRANSITIVE, TRANSITIVE, VERB_LINKS

ANIMALS_AND_PEOPLE = ANIMALS + PEOPLE
BORN = {"je": "was", "il": "was", "nous": "were", "vous": "were", "ils": "were"}


class Facts(Clauses):
    """Statements with numbers, times and infinitives."""

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
            return (
                head
                + rest
                + (mass.fr, mass.en)
                + where
                + self.phrase(place, False, "the", self.adjectives(place, 0.5)).text
            )
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
        thing = self.phrase(
            noun, plural, self.pick(("the", "this", "the"), lambda d: f"cost {d}", 2), self.adjectives(noun, 0.7)
        )
        tense = self.pick(("present", "past", "future"), lambda t: f"cost {t}", 2)
        forms = {
            "present": ("coûtent" if plural else "coûte", "cost" if plural else "costs"),
            "past": ("ont coûté" if plural else "a coûté", "cost"),
            "future": ("coûteront" if plural else "coûtera", "will cost"),
        }
        return thing.text + forms[tense] + price

    def paid(self, price: Pair) -> Pair:
        """payer or dépenser: elle a payé douze euros pour la robe."""
        subject = self.subject("past")
        verb = self.pick((("payé", "paid"), ("dépensé", "spent")), lambda v: f"paid {v[0]}", 2)
        noun = self.noun(THINGS[:-2] + FOODS)
        thing = self.object(noun, rate=0.5)
        self.tags.add("past")
        return (
            Pair(words(subject.fr, AVOIR[subject.person], verb[0]), words(subject.en, verb[1]))
            + price
            + (words("pour", thing.text.fr), words("for", thing.text.en))
        )

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
            old = Pair(
                words(subject.fr, AVOIR[subject.person], numerals.french_number(number), "ans"),
                words(subject.en, be(subject), numerals.english_number(number), "years old"),
            )
            other = Pair(*self.pick((("et", "and"), ("mais", "but")), lambda p: f"link {p[0]}", 2))
            return (
                old
                + other
                + self.event(
                    "present", PRONOUNS["il"] if subject.gender == "m" and subject.third else None, rate=0.3
                ).pair
            )
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
            (
                ("part", "leaves"),
                ("est parti", "left"),
                ("partira", "will leave"),
                ("arrive", "arrives"),
                ("est arrivé", "arrived"),
                ("arrivera", "will arrive"),
            ),
            lambda v: f"leaves {v[0]}",
            2,
        )
        way = (
            Pair(f"pour {city[0]}", f"to {city[1]}")
            if leaves[1].startswith(("leave", "left", "will leave"))
            else Pair(f"de {city[0]}", f"from {city[1]}")
        )
        text = vehicle + way + leaves + (Pair("à", "at") + numerals.random_clock(self.rng))
        if self.chance(0.5):
            tense = {"part": "present", "arrive": "present", "partira": "future", "arrivera": "future"}.get(
                leaves[0], "past"
            )
            day = self.pick(DAYS, lambda day: f"day {day[0]}")
            extra = {
                "present": (f"chaque {day[0]}", f"every {day[1]}"),
                "future": (f"{day[0]} prochain", f"next {day[1]}"),
                "past": (f"{day[0]} dernier", f"last {day[1]}"),
            }[tense]
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
        link = self.pick(
            (("avant de", "before"), ("sans", "without"), ("au lieu de", "instead of")), lambda p: f"link {p[0]}", 2
        )
        tense = self.tense()
        clause = self.event(tense, rate=0.3, simple=True).pair
        return clause + link + self.infinitive("ing", rate=0.3, pronoun=False)

    def like_to(self) -> Pair:
        """aimer, préférer, commencer à, essayer de ... and an infinitive."""
        links = [link for link in VERB_LINKS]
        tense = self.pick(("present", "past", "future", "present"), lambda t: f"like {t}", 2)
        if tense != "present":
            links = [
                link
                for link in links
                if link[0].infinitive in ("essayer", "commencer", "décider", "oublier", "apprendre")
            ]
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
