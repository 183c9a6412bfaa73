"""Colours of figures: a fixed colour for every arm, others for other lines, and the colour of each on a dark page."""

import hashlib

# Okabe and Ito, for lines and bars that are no arms: told apart with all common kinds of colour blindness. Orange and
# sky blue are darker than theirs, for a contrast of 3 with white; on a dark page they are as published.
_LINES = {
    "#0072B2": "#4FA3E0",
    "#D55E00": "#FF8A3D",
    "#009E73": "#009E73",
    "#CC79A7": "#CC79A7",
    "#BF8400": "#E69F00",
    "#4897C4": "#56B4E9",
    "#000000": "#FFFFFF",
    "#706200": "#8C7A00",
}
OKABE_ITO, DARK_OKABE_ITO = tuple(_LINES), tuple(_LINES.values())
# Arm -> colour on white, and on a dark page. Chosen by a search, so that any two differ by 8 or more (CIEDE2000)
# to normal sight, protanopes, deuteranopes and tritanopes (Machado et al. 2009), and each has a contrast of 3 or more
# with its background (WCAG 1.4.11): tests/test_colors.py.
_ARMS = {
    "reference": ("#7F7F7F", "#8C8C8C"),
    "teacher": ("#000000", "#FFFFFF"),
    "student_aux": ("#0072B2", "#4FA3E0"),
    "student_all": ("#088CFF", "#9CC6FD"),
    "cross_reference": ("#80471D", "#A66B34"),
    "cross_aux": ("#D55E00", "#FF8A3D"),
    "cross_all": ("#BA8957", "#F9DFC1"),
    "teacher_body_initial_head": ("#28A39C", "#2BD1C9"),
    "student_body_teacher_head": ("#955F63", "#D59DA8"),
    "hidden_shared_only": ("#83774D", "#CDB77F"),
    "output_shared_only": ("#664383", "#957FB1"),
}
# Arm -> colours of lines, and the grey of nulls, that come nearer to its own than 8 on one of the pages, to one of the
# four sights: they are not told from it without another dash or marker.
NEAR = {
    "reference": ("#949494", "#CC79A7"),
    "teacher": ("#000000",),
    "student_aux": ("#0072B2", "#4897C4"),
    "student_all": ("#4897C4",),
    "cross_reference": ("#706200",),
    "cross_aux": ("#D55E00", "#BF8400", "#706200"),
    "cross_all": ("#009E73", "#CC79A7", "#BF8400"),
    "teacher_body_initial_head": ("#949494", "#009E73", "#CC79A7", "#4897C4"),
    "student_body_teacher_head": ("#949494", "#009E73"),
    "output_shared_only": ("#CC79A7",),
}
ARM_COLORS = {arm: light for arm, (light, _) in _ARMS.items()}
DARK_ARM_COLORS = {arm: dark for arm, (_, dark) in _ARMS.items()}
GREY = "#949494"
DARK_PAGE = "#202226"


def faint(color: str) -> str:
    """The colour of a band behind a line of this colour."""
    red, green, blue = (int(color[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"


def arm_color(arm: str) -> str:
    """The fixed colour of an arm; other names get a colour that depends on the name alone, so that two may get one.

    In a figure of `kinds` the second of them gets another (`looks`).
    """
    digest = hashlib.sha256(str(arm).encode()).digest()
    return ARM_COLORS.get(arm, OKABE_ITO[digest[0] % len(OKABE_ITO)])


def _darkened() -> dict[str, str]:
    """The replacement of colours in a figure's JSON for a dark page."""
    pairs = _LINES | dict(_ARMS.values())
    bands = {faint(light): faint(dark) for light, dark in pairs.items()}
    page = {'"white"': f'"{DARK_PAGE}"', "#222222": "#E6E6E3", "#444444": "#8A8C90", "#BBBBBB": "#55585E"}
    return {"#E6E6E6": "#363940", **page, **pairs, **bands}


DARK = _darkened()
