"""The words: nouns, adjectives, names and small lists, each French word with its one English rendering.

Words were chosen so that the ear can tell them apart: of most sets of French homophones (mère, maire, mer) one is here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    """A noun in both languages; `tags` say what can be done with it."""

    fr: str
    gender: str  # "m" or "f"
    en: str
    tags: frozenset[str]
    fr_plural: str
    en_plural: str
    countable: bool  # whether the corpus uses the plural

    def french(self, plural: bool) -> str:
        return self.fr_plural if plural else self.fr

    def english(self, plural: bool) -> str:
        return self.en_plural if plural else self.en


@dataclass(frozen=True)
class Adjective:
    """An adjective; `before` the French noun or after it; `comparative` is "" where English says "more"."""

    masculine: str
    feminine: str
    en: str
    before: bool
    tags: frozenset[str]
    comparative: str
    masculine_vowel: str  # the form before a vowel: "nouvel", else ""

    def french(self, gender: str, plural: bool, vowel_follows: bool = False) -> str:
        if gender == "m" and not plural and vowel_follows and self.masculine_vowel:
            return self.masculine_vowel
        return french_plural(self.feminine if gender == "f" else self.masculine, plural)


def french_plural(word: str, plural: bool = True) -> str:
    """The written plural of a French noun or adjective."""
    if not plural or word[-1] in "sxz":
        return word
    if word.endswith("al"):
        return word[:-2] + "aux"
    return word + ("x" if word.endswith("eau") else "s")


def english_plural(word: str) -> str:
    """The regular English plural."""
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def _nouns(table: str, *shared: str) -> list[Noun]:
    """Lines "french gender english [tag,tag] [=irregular plural]"; "french+" has a plural, "_" is a blank."""
    nouns = []
    for line in table.strip().splitlines():
        for entry in line.split(";"):
            if not entry.strip():
                continue
            fr, gender, en, *rest = (field.replace("_", " ") for field in entry.split())
            countable, fr = fr.endswith("+"), fr.rstrip("+")
            plural = next((field[1:] for field in rest if field.startswith("=")), english_plural(en))
            tags = {tag for field in rest if not field.startswith("=") for tag in field.split(",")}
            fr_plural = "grands-" + fr[6:] + "s" if fr.startswith("grand-") else french_plural(fr)
            nouns.append(Noun(fr, gender, en, frozenset(tags | set(shared)), fr_plural, plural, countable))
    return nouns


THINGS: list[Noun] = [
    *_nouns(
        """livre+ m book; lettre+ f letter send; journal+ m newspaper; message m message send
        histoire f story; carte f card send; dictionnaire m dictionary""",
        "thing", "readable",
    ),
    *_nouns(
        """robe+ f dress; chemise+ f shirt; manteau m coat; chapeau+ m hat; veste f jacket; jupe f skirt
        cravate f tie; bague f ring""",
        "thing", "clothes", "colour",
    ),
    *_nouns(
        """table+ f table surface; chaise+ f chair; lit m bed surface; lampe+ f lamp lamp; canapé m sofa surface
        tapis m carpet surface; armoire f wardrobe openable; étagère f shelf surface""",
        "thing", "furniture", "colour",
    ),
    *_nouns(
        """voiture+ f car; vélo+ m bicycle; camion m truck; bateau+ m boat; moto f motorbike""",
        "thing", "vehicle", "colour",
    ),
    *_nouns(
        """téléphone+ m phone; ordinateur m computer lamp; radio f radio lamp; montre f watch; guitare f guitar
        piano m piano""",
        "thing", "device",
    ),
    *_nouns(
        """couteau m knife; assiette f plate; tasse+ f cup; bouteille+ f bottle openable; boîte f box openable
        sac+ m bag openable; valise f suitcase openable; couverture f blanket; parapluie m umbrella
        ballon m ball; stylo+ m pen; enveloppe f envelope openable,send; clé+ f key""",
        "thing", "object", "heavy", "colour",
    ),
    *_nouns(
        """photo+ f photo send; tableau m painting; cadeau+ m gift send; fleur+ f flower pickable
        billet m ticket send""",
        "thing", "object",
    ),
    *_nouns("porte+ f door; fenêtre+ f window", "openable", "colour", "house"),
]  # fmt: skip

FOODS: list[Noun] = _nouns(
    """pomme+ f apple pickable,raw; orange+ f orange pickable,raw; poire f pear pickable,raw
    tomate+ f tomato pickable,raw =tomatoes; gâteau+ m cake dish; citron m lemon pickable,raw; sandwich m sandwich dish
    carotte+ f carrot raw; fraise f strawberry pickable,raw""",
    "food",
)

MASS: list[Noun] = _nouns(
    """pain m bread fresh,solid,eat; fromage m cheese solid,eat; lait m milk drink,fresh; eau f water drink
    café m coffee drink,dish; thé m tea drink,dish;
    vin m wine drink; viande f meat dish,solid,eat; poisson m fish dish,fresh,eat
    riz m rice dish,eat; beurre m butter fresh; sucre m sugar; soupe f soup dish,eat; salade f salad dish,fresh,eat
    chocolat m chocolate dish,eat; bière f beer drink""",
    "mass",
)

ANIMALS: list[Noun] = _nouns(
    """chien+ m dog; chat+ m cat; cheval+ m horse; oiseau+ m bird; vache+ f cow; lapin m rabbit; poule f hen
    souris f mouse""",
    "animal",
)

KIN: list[Noun] = _nouns(
    """frère+ m brother; sœur+ f sister; père m father; mère f mother; oncle m uncle; tante f aunt; cousin m cousin
    fils m son; fille+ f daughter; grand-mère f grandmother; grand-père m grandfather; ami+ m friend
    voisin+ m neighbor; voisine f neighbor""",
    "person", "kin",
)  # fmt: skip

PEOPLE: list[Noun] = _nouns(
    """médecin+ m doctor; professeur+ m teacher; garçon+ m boy; homme+ m man =men; femme+ f woman =women
    étudiant+ m student; étudiante f student; avocat m lawyer; boulanger m baker; infirmière f nurse; chanteur m singer
    chanteuse f singer; acteur m actor; serveur m waiter; fermier m farmer; directeur m manager; directrice f manager
    client+ m customer; cliente f customer; touriste m tourist; journaliste m journalist; roi m king
    reine f queen; enfant+ m child =children""",
    "person",
)

# "at" places take à / at when one is there; "in" places take dans / in; "go" places can be gone to with à / to.
PLACES: list[Noun] = _nouns(
    """marché m market at,go,shop; gare f station at,go;
    école f school at,go; banque f bank at,go; hôpital m hospital at,go
    hôtel m hotel at,go,shop; musée m museum at,go; plage f beach at,go; piscine f pool at,go
    restaurant m restaurant at,go,shop; bibliothèque f library at,go; boulangerie f bakery at,go,shop
    théâtre m theater at,go; cinéma m cinema at,go; aéroport m airport at,go
    usine f factory at,go; ferme f farm at,go; église f church at,go
    jardin m garden in; cuisine f kitchen in,shop;
    parc m park in,go; forêt f forest in,crossing; chambre f bedroom in,room
    salon m living_room in; garage m garage in,room; château m castle in,go; appartement m apartment in,room
    rue f street in,crossing; village m village in,go; maison f house in,room,house; magasin m shop in,shop
    pont m bridge crossing; rivière f river crossing; place f square crossing""",
    "place",
)

# Whose things are spoken of: le vélo de paul, le vélo de ma sœur.
OWNERS: tuple[str, ...] = ("paul", "marie", "julie", "lucas", "emma", "hugo")
OWNING_KIN: tuple[str, ...] = ("frère", "sœur", "père", "mère", "ami", "voisine")

CITIES: tuple[tuple[str, str], ...] = (
    ("lyon", "lyon"), ("bordeaux", "bordeaux"), ("lille", "lille"), ("toulouse", "toulouse"), ("genève", "geneva"),
    ("bruxelles", "brussels"), ("londres", "london"), ("berlin", "berlin"),
)  # fmt: skip

NAMES: tuple[tuple[str, str], ...] = (
    ("paul", "m"), ("thomas", "m"), ("lucas", "m"), ("hugo", "m"), ("nicolas", "m"),
    ("marie", "f"), ("julie", "f"), ("sophie", "f"), ("emma", "f"), ("léa", "f"),
)  # fmt: skip

DAYS: tuple[tuple[str, str], ...] = (
    ("lundi", "monday"), ("mardi", "tuesday"), ("mercredi", "wednesday"), ("jeudi", "thursday"),
    ("vendredi", "friday"), ("samedi", "saturday"), ("dimanche", "sunday"),
)  # fmt: skip


def _adjectives(table: str) -> list[Adjective]:
    """Entries "masculine/feminine[/before vowel] english before|after tags [comparative]"."""
    adjectives = []
    for line in table.strip().splitlines():
        for entry in line.split(";"):
            if not entry.strip():
                continue
            forms, en, position, tags, *rest = entry.split()
            masculine, feminine, *vowel = forms.split("/")
            adjectives.append(
                Adjective(
                    masculine, feminine, en.replace("_", " "), position == "before", frozenset(tags.split(",")),
                    rest[0] if rest else "", vowel[0] if vowel else "",
                )
            )  # fmt: skip
    return adjectives


# Tags name the tags of the nouns that an adjective fits; "state" adjectives only follow "to be".
ADJECTIVES: list[Adjective] = _adjectives(
    """petit/petite small before thing,place,animal,house smaller;
    grand/grande big before thing,place,animal,house bigger
    vieux/vieille/vieil old before thing,place,person,animal older; nouveau/nouvelle/nouvel new before thing,go
    beau/belle/bel beautiful before clothes,place,vehicle,object; joli/jolie pretty before clothes,furniture,place
    bon/bonne good before food,mass,readable; mauvais/mauvaise bad before readable,food,mass
    jeune/jeune young before person younger; gros/grosse fat before animal
    rouge/rouge red after colour,vehicle,house; bleu/bleue blue after colour,house; vert/verte green after colour,house
    noir/noire black after colour,animal; blanc/blanche white after colour,animal,house
    jaune/jaune yellow after colour,house; gris/grise gray after colour,animal; brun/brune brown after colour,animal
    rose/rose pink after colour;
    cher/chère expensive after thing,food; moderne/moderne modern after furniture,device,place
    léger/légère light after device,furniture,heavy lighter; lourd/lourde heavy after furniture,heavy heavier
    cassé/cassée broken after heavy,device; propre/propre clean after clothes,place
    élégant/élégante elegant after clothes
    rapide/rapide fast after vehicle,animal faster; lent/lente slow after vehicle slower
    confortable/confortable comfortable after furniture; vide/vide empty after openable
    magnifique/magnifique magnificent after place,clothes,readable; célèbre/célèbre famous after place,person
    calme/calme quiet after place quieter; sombre/sombre dark after place
    délicieux/délicieuse delicious after food,mass; sucré/sucrée sweet after food; mûr/mûre ripe after raw
    froid/froide cold after drink,dish colder; chaud/chaude hot after dish; frais/fraîche fresh after raw,fresh
    intéressant/intéressante interesting after readable; difficile/difficile difficult after readable
    court/courte short after readable shorter; drôle/drôle funny after readable,person
    gentil/gentille kind after person; intelligent/intelligente smart after person smarter
    riche/riche rich after person richer; timide/timide shy after person; sérieux/sérieuse serious after person
    fort/forte strong after person stronger
    paresseux/paresseuse lazy after person,animal
    courageux/courageuse brave after person;
    français/française french after person,place; dangereux/dangereuse dangerous after animal,device
    grand/grande tall state human taller; fatigué/fatiguée tired state human; malade/malade sick state human
    heureux/heureuse happy state human happier; triste/triste sad state human; inquiet/inquiète worried state human
    occupé/occupée busy state human; content/contente pleased state human; fâché/fâchée angry state human
    libre/libre free state human; perdu/perdue lost state human"""
)
