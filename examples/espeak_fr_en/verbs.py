"""The verbs: conjugation in both languages and what each verb can be said of."""

from __future__ import annotations

from dataclasses import dataclass

PERSONS = ("je", "il", "nous", "vous", "ils")
FUTURE_ENDINGS = dict(zip(PERSONS, ("ai", "a", "ons", "ez", "ont"), strict=True))
AVOIR = dict(zip(PERSONS, ("ai", "a", "avons", "avez", "ont"), strict=True))
ETRE = dict(zip(PERSONS, ("suis", "est", "sommes", "êtes", "sont"), strict=True))
ALLER = dict(zip(PERSONS, ("vais", "va", "allons", "allez", "vont"), strict=True))


@dataclass(frozen=True)
class Verb:
    """A verb: French infinitive, present, participle and future stem; English base, third person, past and -ing.

    `particle` is the English preposition before the object ("look for"), `tags` the tags of the objects it takes;
    `pronoun` says what le/la/les may stand for: "thing" (it), "person" (him, her) or "" (no pronoun: ambiguous).
    """

    infinitive: str
    present: dict[str, str]
    participle: str
    future_stem: str
    auxiliary: str
    base: str
    third: str
    past: str
    ing: str
    particle: str
    tags: frozenset[str]
    pronoun: str

    @property
    def key(self) -> str:
        return self.infinitive

    def english(self, form: str) -> str:
        """`form` is base, third, past or ing; the particle is included: "looks for"."""
        word = getattr(self, form)
        return f"{word} {self.particle}" if self.particle else word


def english_third(base: str) -> str:
    """The third person singular: watches, carries, sells."""
    if base.endswith(("s", "x", "ch", "sh", "o")):
        return base + "es"
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ies"
    return base + "s"


def english_past(base: str) -> str:
    """The regular past: closed, carried, looked."""
    if base.endswith("e"):
        return base + "d"
    if base.endswith("y") and base[-2] not in "aeiou":
        return base[:-1] + "ied"
    return base + "ed"


def english_ing(base: str) -> str:
    """The -ing form: closing, looking; doubled consonants are given in the table."""
    return base[:-1] + "ing" if base.endswith("e") and not base.endswith("ee") else base + "ing"


def _regular_present(infinitive: str, strong: str) -> dict[str, str]:
    weak = infinitive[:-2]
    strong = strong or weak
    nous = weak + ("eons" if weak.endswith("g") else "ons")
    if weak.endswith("c"):
        nous = weak[:-1] + "çons"
    return dict(zip(PERSONS, (strong + "e", strong + "e", nous, weak + "ez", strong + "ent"), strict=True))


def _verbs(table: str) -> list[Verb]:
    """Lines "infinitive [present] | english[+particle] [past] [ing] | tags [pronoun]"; see the tables below.

    A French side of one word is a regular -er verb; "acheter achèt" gives its strong stem; an irregular verb gives
    "infinitive p1,p2,p3,p4,p5 participle future-stem"; "*" before the infinitive means être in the passé composé.
    """
    verbs = []
    for line in table.strip().splitlines():
        french, english, usage = (part.split() for part in line.split("|"))
        infinitive = french[0].lstrip("*")
        if len(french) < 3:
            strong = french[1] if len(french) == 2 else ""
            present = _regular_present(infinitive, strong)
            participle = infinitive[:-2] + "é"
            stem = strong + "er" if strong and "é" not in infinitive[-4:] else infinitive  # achètera, but préférera
        else:
            present = dict(zip(PERSONS, french[1].split(","), strict=True))
            participle, stem = french[2], french[3]
        base, _, particle = english[0].partition("+")
        forms = english[1:]
        past = next((form for form in forms if not form.endswith("ing")), english_past(base))
        ing = next((form for form in forms if form.endswith("ing")), english_ing(base))
        tags = frozenset(usage[0].split(","))
        pronoun = usage[1] if len(usage) > 1 else ""
        verbs.append(
            Verb(
                infinitive,
                present,
                participle,
                stem,
                "être" if french[0].startswith("*") else "avoir",
                base,
                english_third(base),
                past,
                ing,
                particle,
                tags,
                pronoun,
            )
        )
    return verbs


TRANSITIVE: list[Verb] = _verbs(
    """acheter achèt | buy bought | thing,food,mass thing
    vendre vends,vend,vendons,vendez,vendent vendu vendr | sell sold | thing,food,animal thing
    réparer | repair | vehicle,device,furniture,house thing
    laver | wash | clothes,vehicle,food thing
    nettoyer nettoi | clean | furniture,vehicle,house thing
    préparer | prepare | dish thing
    porter | wear wore | clothes thing
    fermer | close | openable thing
    ouvrir ouvre,ouvre,ouvrons,ouvrez,ouvrent ouvert ouvrir | open | openable thing
    lire lis,lit,lisons,lisez,lisent lu lir | read read | readable thing
    écrire écris,écrit,écrivons,écrivez,écrivent écrit écrir | write wrote | readable thing
    boire bois,boit,buvons,buvez,boivent bu boir | drink drank | drink thing
    manger | eat ate | food,eat thing
    prendre prends,prend,prenons,prenez,prennent pris prendr | take took | object,food,device thing
    trouver | find found | thing,animal
    chercher | look+for | thing,animal,person
    regarder | look+at | thing,animal,place
    attendre attends,attend,attendons,attendez,attendent attendu attendr | wait+for | person,send
    écouter | listen+to | person
    voir vois,voit,voyons,voyez,voient vu verr | see saw | person,animal,place person
    connaître connais,connaît,connaissons,connaissez,connaissent connu connaîtr | know knew | person,place person
    aider | help | person person
    inviter | invite | person person
    remercier | thank | person person
    rencontrer | meet met | person person
    appeler appell | call | person person
    oublier | forget forgot forgetting | object,clothes,person
    perdre perds,perd,perdons,perdez,perdent perdu perdr | lose lost | object,clothes,device thing
    casser | break broke | heavy,device,furniture thing
    choisir choisis,choisit,choisissons,choisissez,choisissent choisi choisir|choose chose|clothes,furniture,food thing
    finir finis,finit,finissons,finissez,finissent fini finir | finish | readable thing
    utiliser | use | device,vehicle thing
    garder | keep kept | object,clothes thing
    couper | cut cut cutting | raw,solid thing
    goûter | taste | food,mass thing
    peindre peins,peint,peignons,peignez,peignent peint peindr | paint | house,furniture,place thing
    visiter | visit | place
    quitter | leave left | place,person
    traverser | cross | crossing
    aimer | like | animal,mass,person,place
    détester | hate | mass,animal,place
    dessiner | draw drew | animal,place,person
    allumer | turn+on | lamp
    cueillir cueille,cueille,cueillons,cueillez,cueillent cueilli cueiller | pick | pickable thing
    nourrir nourris,nourrit,nourrissons,nourrissez,nourrissent nourri nourrir | feed fed | animal
    conduire conduis,conduit,conduisons,conduisez,conduisent conduit conduir | drive drove | vehicle thing"""
)

GIVING: list[Verb] = _verbs(
    """donner | give gave | thing,food thing
    montrer | show | thing,animal thing
    envoyer envoie,envoie,envoyons,envoyez,envoient envoyé enverr | send sent | send thing
    prêter | lend lent | thing thing
    apporter | bring brought | thing,food thing
    vendre vends,vend,vendons,vendez,vendent vendu vendr | sell sold | thing,animal thing"""
)

# The verbs said with en train de, avant de, sans ...: the English forms in -ing that the corpus has.
ING_VERBS = frozenset(
    [
        "acheter",
        "vendre",
        "réparer",
        "laver",
        "nettoyer",
        "préparer",
        "fermer",
        "ouvrir",
        "lire",
        "écrire",
        "boire",
        "manger",
        "chercher",
        "regarder",
        "attendre",
        "écouter",
        "aider",
        "dessiner",
        "travailler",
        "dormir",
        "étudier",
        "chanter",
        "danser",
        "jouer",
        "marcher",
        "courir",
        "nager",
        "parler",
    ]
)
# Verbs that happen to one: no infinitive after "pour", no order, no progressive.
INVOLUNTARY = frozenset(("aimer", "détester", "connaître", "perdre", "oublier", "casser", "trouver"))

# Verbs without an object; the tag says which places follow: "at" (be somewhere), "go" (movement), "from".
INTRANSITIVE: list[Verb] = _verbs(
    """dormir dors,dort,dormons,dormez,dorment dormi dormir | sleep slept | at
    travailler | work | at
    étudier | study | at
    chanter | sing sang | at
    danser | dance | at
    jouer | play | at
    *rester | stay | at
    marcher | walk | walk
    courir cours,court,courons,courez,courent couru courr | run ran running | walk
    manger | eat ate | at
    attendre attends,attend,attendons,attendez,attendent attendu attendr | wait | at
    crier | shout | at
    voyager | travel | none
    nager | swim swam swimming | pool
    *aller vais,va,allons,allez,vont allé ir | go went | go
    *arriver | arrive | arrive
    *partir pars,part,partons,partez,partent parti partir | leave left | none
    *venir viens,vient,venons,venez,viennent venu viendr | come came | from
    habiter | live | home
    *entrer | enter | enter"""
)

# Verbs that an infinitive follows: the French link and the English link ("" and "to" ...).
VERB_LINKS: list[tuple[Verb, str]] = list(
    zip(
        _verbs(
            """aimer | like | none
            préférer préfèr | prefer preferred | none
            espérer espèr | hope | none
            essayer essai | try | none
            commencer | start | none
            décider | decide | none
            oublier | forget forgot forgetting | none
            apprendre apprends,apprend,apprenons,apprenez,apprennent appris apprendr | learn | none"""
        ),
        ("", "", "", "de", "à", "de", "de", "à"),
        strict=True,
    )
)

# Verbs with a person after à (lui, leur before the verb).
SPEAKING: list[Verb] = _verbs(
    """parler | talk+to | person
    téléphoner | phone | person"""
)


def _present(*forms: str) -> dict[str, str]:
    return dict(zip(PERSONS, forms, strict=True))


MODALS: dict[str, tuple[dict[str, str], str, str, str]] = {
    # infinitive: (present, English for others, English third person, kind)
    "pouvoir": (_present("peux", "peut", "pouvons", "pouvez", "peuvent"), "can", "can", "modal"),
    "devoir": (_present("dois", "doit", "devons", "devez", "doivent"), "must", "must", "modal"),
    "vouloir": (_present("veux", "veut", "voulons", "voulez", "veulent"), "want to", "wants to", "verb"),
}

# Saying and thinking before "que": present and passé composé.
OPINION: list[Verb] = _verbs(
    """penser | think thought | none
    croire crois,croit,croyons,croyez,croient cru croir | believe | none
    savoir sais,sait,savons,savez,savent su saur | know knew | none
    dire dis,dit,disons,dites,disent dit dir | say said | none
    expliquer | explain | none
    promettre promets,promet,promettons,promettez,promettent promis promettr | promise | none"""
)
