"use strict";
// The page sets DARK (light colour -> dark colour) and PATTERN (any light colour) before this script.
// Figures are drawn one after the other, so that the page can be read meanwhile. On a phone, names of rows are wrapped.
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
