"""Style and script of the report's page. Colours of figures in the dark are those of `figures.colors.DARK`."""

STYLE = """
:root { color-scheme: light; --ink: #1d1d1f; --soft: #55565a; --paper: #fbfbfa; --card: #fff; --line: #e0e0dc;
  --link: #0b5cad; --good: #00664b; --bad: #a33c00; --part: #6b5600; --open: #55565a; }
@media screen and (prefers-color-scheme: dark) { :root { color-scheme: dark; --ink: #e6e6e3; --soft: #b0b1b5;
  --paper: #17181b; --card: #202226; --line: #363940; --link: #7db8f5; --good: #4fd0a5; --bad: #ff9d66;
  --part: #e3c65a; --open: #b0b1b5; } }
* { box-sizing: border-box; }
html { scroll-padding-top: 1rem; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 5rem; font: 1.05rem/1.55 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); overflow-wrap: break-word; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 1rem; text-wrap: balance; }
h2 { margin: 4rem 0 1.25rem; font-size: 1.5rem; } h3 { margin: 0; font-size: 1.2rem; line-height: 1.35; }
a { color: var(--link); } p { margin: .6rem 0; }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -99rem; } .skip:focus { position: static; }
.soft, figcaption, dt { color: var(--soft); } .small { font-size: .92rem; }
nav h2 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; } nav ul { list-style: none; margin: 0; padding: 0; }
nav li { display: flex; gap: 1rem; justify-content: space-between; padding: .28rem 0;
  border-top: 1px solid var(--line); }
nav a { color: inherit; text-decoration: none; } nav a:hover { text-decoration: underline; }
article { border: 1px solid var(--line); border-radius: .75rem; padding: 1.25rem 1.5rem; margin: 0 0 1.5rem;
  background: var(--card); }
.head { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; justify-content: space-between; align-items: baseline; }
.answer { font-size: 1.1rem; margin: .75rem 0; }
.verdict { font-weight: 600; font-size: .92rem; white-space: nowrap; } .verdict::before { content: "\\25CF\\00A0"; }
.good { color: var(--good); } .bad { color: var(--bad); } .part { color: var(--part); }
.open { color: var(--open); font-weight: 400; } .open::before { content: "\\25CB\\00A0"; } .warn { color: var(--bad); }
figure { margin: 1.25rem 0; } figcaption { font-size: .92rem; margin-top: .4rem; } .scroll { overflow-x: auto; }
.plot p { padding: 1rem; margin: 0; color: var(--soft); }
code { font: .88rem/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
pre { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; white-space: pre-wrap;
  margin: .9rem 0; }
summary { cursor: pointer; padding: .3rem 0; color: var(--soft); }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0; } th { font-weight: 600; }
th, td { text-align: left; vertical-align: top; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); }
.numbers td { white-space: nowrap; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1rem; margin: .5rem 0;
  font-size: .92rem; }
dd { margin: 0; overflow-wrap: anywhere; } ul { padding-left: 1.2rem; } .waiting li { margin: .5rem 0; }
@media (max-width: 40rem) { article { padding: 1rem; } h1 { font-size: 1.6rem; } body { padding: 1rem .75rem 4rem; }
  dl { grid-template-columns: minmax(0, 1fr); } dt { margin-top: .4rem; } }
@media print { body { max-width: none; font-size: 10pt; padding: 0; } article { break-inside: avoid; }
  .scroll { overflow: visible; } .modebar, .skip { display: none !important; } }
"""

# Figures are drawn one after the other, so that the page can be read meanwhile. On a phone, names of rows are wrapped.
SCRIPT = """
"use strict";
const dark = matchMedia("(prefers-color-scheme: dark)");
const wrapped = (text, most) => String(text).replace(new RegExp("(.{10," + most + "}?) ", "g"), "$1<br>");
function titled(layout, most) {
  for (const axis of Object.keys(layout).filter((key) => key.startsWith("xaxis")).map((key) => layout[key]))
    if (axis.title && axis.title.text && (axis.domain || [0, 1])[1] - (axis.domain || [0, 1])[0] < most)
      axis.title.text = wrapped(axis.title.text, 24);
}
function narrowed(layout) {
  layout.font = Object.assign({}, layout.font, {size: 12});
  layout.margin = Object.assign({}, layout.margin, {l: 40, r: 12});
  layout.legend = {orientation: "h", y: -0.2, yanchor: "top"};
  for (const key of Object.keys(layout).filter((key) => key.startsWith("yaxis")))
    if (layout[key].ticktext) layout[key].ticktext = layout[key].ticktext.map((text) => wrapped(text, 17));
}
function draw(place, isDark) {
  let text = place.nextElementSibling.textContent;
  if (isDark) text = text.replace(PATTERN, (found) => DARK[found]);
  const figure = JSON.parse(text);
  titled(figure.layout, place.clientWidth < 600 ? 2 : 0.6);
  if (place.clientWidth < 600) narrowed(figure.layout);
  if (!place.classList.contains("js-plotly-plot")) place.replaceChildren();
  return Plotly.react(place, figure.data, figure.layout, {displayModeBar: false, responsive: true});
}
const places = () => document.querySelectorAll(".plot");
async function drawAll() {
  if (typeof Plotly === "undefined") return;
  for (const place of places()) {
    await draw(place, dark.matches);
    await new Promise((resume) => setTimeout(resume));
  }
  document.documentElement.dataset.drawn = "all";
}
dark.addEventListener("change", drawAll);
addEventListener("beforeprint", () => places().forEach((place) => draw(place, false)));
addEventListener("afterprint", () => places().forEach((place) => draw(place, dark.matches)));
drawAll();
"""
