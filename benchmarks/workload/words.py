"""Common English words, from which text is made: our own list, most of them one token in Gemma."""

from __future__ import annotations

_TEXT = """
able about above across action active actual add address after again age agree air all allow almost
alone along already also always among amount and animal another answer any apple apply area argue
arm army around arrive art article ask attack aunt author avoid away baby back bad bag balance ball
band bank bar base basic basket battle beach bear beat beauty because become bed before begin behind
believe below bench benefit best better between beyond big bird birth bit black blood blue board
boat body bone book born both bottle bottom bowl box boy branch bread break bridge brief bright
bring broad brother brown brush build burn bus business busy but butter buy cable cake call calm
camera camp can cap capital captain car card care carry case castle cat catch cause cell center
central century certain chain chair chance change chapter charge cheap check cheese chest chief
child choice choose church circle citizen city claim class clean clear clock close cloth cloud club
coal coast coat code coffee cold collect college color column come common company compare complete
computer concern condition connect consider contain content control cook cool copper copy corn
corner correct cost cotton count country couple course court cousin cover cow create credit cross
crowd culture cup current curve custom cut cycle daily damage dance danger dark data date daughter
day dead deal dear debate decide deep degree deliver demand depend describe desert design desk
detail develop device die differ dinner direct discover discuss disease dish distance divide doctor
document dog dollar door double doubt down draw dream dress drink drive drop dry duck during dust
duty each ear early earn earth east easy eat edge education effect effort egg eight either electric
empty end enemy energy engine enjoy enough enter entire equal escape evening event ever every exact
example except exchange exist expect expert explain express eye face fact factory fail fair fall
family famous far farm fast father fear feature feed feel fence few field fight figure fill film
final find fine finger finish fire firm first fish fit five flag flat flight floor flow flower fly
follow food foot force foreign forest forget form forward four frame free fresh friend from front
fruit full fun function future gain game garden gas gate gather general gentle get gift girl give
glad glass goal gold good govern grain grand grass gray great green ground group grow guard guess
guest guide gun hair half hall hand happen happy harbor hard hat have head health hear heart heat
heavy height help here hide high hill history hit hold hole holiday home honest hope horse hospital
hot hotel hour house how huge human hundred hunt hurry husband ice idea image improve inch include
increase indeed industry inform insect inside instead interest iron island issue item job join joke
journey joy judge juice jump just keep key kick kind king kitchen knee knife know label labor lake
lamp land language large last late laugh law lay lead leaf learn least leather leave left leg lemon
lesson let letter level library lie life lift light like limit line lion lip list listen little live
local lock long look loss lot loud love low luck lunch machine magic mail main major make man manage
many map mark market master match material matter may meal mean measure meat medicine meet member
memory mention metal method middle might mile milk mind minute mirror miss mix model modern moment
money month moon more morning most mother motion mountain mouse mouth move much museum music must
name narrow nation nature near neck need neighbor neither nest never new news next night nine noise
none noon north nose note nothing notice number object ocean offer office often oil old once one
only open opinion orange order other out outside oven over own owner page pain paint pair paper
parent park part party pass past path pattern pay peace pen pencil people pepper perfect perhaps
period person phone photo piano picture piece pilot pink pipe place plain plan plane plant plate
play please plenty pocket poem point poor popular port position possible post potato pound power
practice prepare present press pretty price prince print private prize problem process produce
program promise proof proper protect proud prove provide public pull pupil pure push put quality
quarter queen question quick quiet quite race radio rail rain raise range rapid rate rather raw
reach read ready real reason receive record red reduce region relate remain remember repair repeat
reply report require rest result return rice rich ride right ring rise river road rock roll roof
room root rope rose round row royal rule run safe sail salt same sand save say scale scene school
science score sea search season seat second secret section see seed seem sell send sense sentence
separate serious serve set settle seven several shade shadow shake shape share sharp sheep sheet
shelf shell shine ship shirt shoe shop shore short should shoulder show shut side sign signal
silence silk silver similar simple since sing single sister sit six size skill skin sky sleep slip
slow small smell smile smoke smooth snow social soft soil soldier solid some son song soon sort
sound soup source south space speak special speech speed spell spend spoon sport spot spread spring
square stage stair stamp stand star start state station stay steam steel step stick still stone stop
store storm story strange stream street strong student study style subject success such sudden sugar
suggest summer sun supply support sure surface surprise sweet swim system table tail take talk tall
tape task taste tax teach team tell ten term test than thank theory thick thin thing think third
thought thousand thread three through throw thunder ticket tie tiger time tiny title today together
tomorrow tone tool tooth top total touch toward tower town track trade train travel tree trip
trouble true trust try turn twelve twenty two type uncle under unit until upon use usual valley
value various very view village visit voice wait walk wall want war warm wash watch water wave way
weak wealth wear weather week weight welcome well west wet wheel when where which while white whole
why wide wife wild will win wind window winter wire wise wish with woman wonder wood wool word work
world worry worth write wrong yard year yellow yes yesterday young zero
"""
WORDS: tuple[str, ...] = tuple(_TEXT.split())
