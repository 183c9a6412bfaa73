"use strict";
// The page sets DARK (light colour -> dark colour), PATTERN (any light colour) and CONFIG (plotly's) before this script.
// Figures are drawn one after the other, so that the page can be read meanwhile.
const dark = matchMedia("(prefers-color-scheme: dark)");
const LETTER = 6.8, LINE = 15; // pixels of the figures' text

function wrapped(text, most) {
  const lines = [""];
  for (const word of String(text).split(/<br>| /)) {
    const parts = word.length > most ? word.split(/(?<=[=/])/) : [word]; // "model=organisms/110-instruct"
    parts.forEach((part, i) => {
      const last = lines[lines.length - 1], gap = last && !i ? " " : "";
      if (last && last.length + gap.length + part.length > most) lines.push(part);
      else lines[lines.length - 1] = last + gap + part;
    });
  }
  return lines.join("<br>");
}
const nLines = (text) => String(text).split("<br>").length;
const longest = (texts) => Math.max(0, ...texts.flatMap((text) => String(text).split("<br>").map((line) => line.length)));

function panelsOf(layout) {
  const keys = Object.keys(layout).filter((key) => /^yaxis\d*$/.test(key) && !layout[key].overlaying);
  const panels = keys.map((key) => {
    const y = layout[key], x = layout[(y.anchor || "x").replace("x", "xaxis")];
    return {ref: key.replace("axis", ""), y, x, across: x.domain || [0, 1], down: y.domain || [0, 1]};
  });
  return panels.sort((a, b) => b.down[1] - a.down[1] || a.across[0] - b.across[0]);
}

// The names along an axis, whether they are ticks' texts or values of the traces.
function named(panel, data, side) {
  const axis = panel[side];
  if (axis.ticktext) return axis.ticktext.map((text, i) => [axis.tickvals[i], text]);
  const ref = side === "y" ? panel.ref : panel.y.anchor || "x";
  const own = data.filter((trace) => (trace[side + "axis"] || side) === ref && Array.isArray(trace[side]));
  const texts = [...new Set(own.flatMap((trace) => trace[side]))];
  return texts.length && texts.every((text) => typeof text === "string" && isNaN(text)) ? texts.map((text) => [text, text]) : [];
}

function label(axis, names, most) {
  axis.tickmode = "array";
  axis.tickvals = names.map(([value]) => value);
  axis.ticktext = names.map(([, text]) => wrapped(text, most));
}

function numbers(panel, data) {
  const ref = panel.y.anchor || "x";
  const own = data.filter((trace) => (trace.xaxis || "x") === ref && Array.isArray(trace.x));
  return own.flatMap((trace) => trace.x).filter((value) => typeof value === "number" && value > 0);
}

// Titles of panels are bold, since a page has many.
const titleOf = (text, width) => "<b>" + wrapped(text, Math.floor((width - 30) / 8.2)) + "</b>";

// One panel a row, names of rows in lines that leave the panel its room, the legend under all.
function arranged(figure, width) {
  const layout = figure.layout, data = figure.data, margin = layout.margin;
  if (data.every((trace) => /^(scatter|scattergl|bar|box|violin|histogram|heatmap|contour)$/.test(trace.type || "scatter")))
    for (const name of ["xaxis", "yaxis"]) layout[name] = layout[name] || {}; // as plotly takes them to be
  const panels = panelsOf(layout);
  if (!panels.length || panels.some((panel) => !panel.x)) return; // maps, pies: as they are
  const inner = layout.height - margin.t - margin.b;
  const titles = (layout.annotations || []).filter((note) => note.xref === "paper" && note.yref === "paper");
  layout.font = Object.assign({}, layout.font, {size: 12});
  for (const trace of data.filter((one) => /text/.test(one.mode || "") && width < 600))
    Object.assign(trace, {textposition: "top right", cliponaxis: false, textfont: Object.assign({}, trace.textfont, {size: 11})});
  let total = 0;
  for (const panel of panels) {
    const names = named(panel, data, "y"), most = Math.max(10, Math.floor(width * 0.36 / LETTER));
    const many = names.length > 40, height = (panel.down[1] - panel.down[0]) * inner;
    if (names.length) label(panel.y, many ? names.filter((_, i) => i % Math.ceil(names.length * LINE / height) === 0) : names, most);
    const rows = names.length && !many ? names.length * (Math.max(...panel.y.ticktext.map(nLines)) * LINE + 9) : 0;
    panel.left = names.length ? longest(panel.y.ticktext) * LETTER + 16 : 62;
    panel.room = Math.max(90, width - panel.left - 24 - (data.some((trace) => trace.colorbar || trace.type === "heatmap") ? 70 : 0));
    const along = named(panel, data, "x"), slot = panel.room / Math.max(1, along.length) / LETTER;
    if (along.length) label(panel.x, along, 24);
    panel.turned = along.length && longest(panel.x.ticktext) > slot;
    if (panel.turned) {
      label(panel.x, along.filter((_, i) => i % Math.ceil(along.length * LINE / panel.room) === 0), 60);
      panel.x.tickangle = -90;
    }
    else if (!panel.x.tickvals && panel.x.type !== "log") panel.x.nticks = Math.max(4, Math.min(8, Math.floor(panel.room / 75)));
    if (panel.x.type === "log" && !panel.x.tickvals) {
      const values = numbers(panel, data), decades = values.length ? Math.log10(Math.max(...values) / Math.min(...values)) : 0;
      panel.x.dtick = decades < (panel.room > 300 ? 2.2 : 0.8) ? "D2" : 1;
      panel.decades = decades;
    }
    if (panel.y.type === "log" && !panel.y.tickvals) panel.y.dtick = 1;
    for (const axis of [panel.x, panel.y]) delete axis.showticklabels;
    for (const axis of [panel.x, panel.y]) {
      axis.tickfont = Object.assign({}, axis.tickfont, {size: 12});
      if (axis.title) axis.title.font = Object.assign({}, axis.title.font, {size: 12});
    }
    if (panel.x.title && panel.x.title.text) panel.x.title.text = wrapped(panel.x.title.text, Math.floor(panel.room / LETTER));
    panel.title = titles.find((note) => !note.taken && Math.abs(note.x - (panel.across[0] + panel.across[1]) / 2) < 0.03 && Math.abs(note.y - panel.down[1]) < 0.03);
    if (panel.title) { panel.title.taken = true; panel.title.font = Object.assign({}, panel.title.font, {size: 13}); panel.title.text = titleOf(panel.title.text, width); }
    const room = panel.y.title && panel.y.title.text ? String(panel.y.title.text).length * LETTER : 0;
    panel.height = Math.max(height, rows, Math.min(room, 420), 160);
    panel.above = panel.title ? nLines(panel.title.text) * 17 + 14 : 10;
    const ticks = panel.turned ? longest(panel.x.ticktext) * LETTER : along.length ? Math.max(...panel.x.ticktext.map(nLines)) * LINE : LINE;
    panel.below = ticks + 14 + (panel.x.title && panel.x.title.text ? nLines(panel.x.title.text) * LINE + 12 : 0);
    if (panel.y.title && panel.y.title.text && room > panel.height) panel.y.title.text = wrapped(panel.y.title.text, Math.floor(panel.height / LETTER));
    total += panel.height + panel.above + panel.below;
  }
  for (const trace of data) if (trace.name) trace.name = wrapped(trace.name, Math.floor((width - 70) / LETTER));
  const entries = data.filter((trace) => trace.showlegend !== false && trace.name).map((trace) => longest([trace.name]) * LETTER + 46);
  const legend = layout.showlegend === false || !entries.length ? 0 : legendHeight(entries, width - 30);
  const left = Math.max(...panels.map((panel) => panel.left));
  for (const panel of panels.filter((one) => one.x.dtick === 1 && one.decades)) // all panels have the widest one's names beside them
    panel.x.dtick = Math.max(1, Math.ceil(panel.decades * 48 / (width - left - 24)));
  layout.legend = Object.assign({}, layout.legend, {orientation: "h", x: 0, xanchor: "left", xref: "container", y: 0, yref: "container", yanchor: "bottom"});
  layout.margin = Object.assign({}, margin, {l: left, r: margin.r, t: 6, b: 6 + legend});
  layout.height = total + layout.margin.t + layout.margin.b;
  let at = 0;
  for (const panel of panels) {
    const top = at + panel.above, bottom = top + panel.height;
    panel.y.domain = [1 - bottom / total, 1 - top / total];
    panel.x.domain = [0, 1];
    panel.x.anchor = panel.ref;
    delete panel.y.automargin;
    if (panel.title) Object.assign(panel.title, {x: 0, xanchor: "left", xshift: 6 - left, align: "left", y: 1 - top / total, yanchor: "bottom", yshift: 3});
    for (const trace of data.filter((one) => (one.yaxis || "y") === panel.ref && (one.type === "heatmap" || one.colorbar)))
      trace.colorbar = Object.assign({}, trace.colorbar, {x: 1.01, xanchor: "left", y: 1 - (top + bottom) / 2 / total, yanchor: "middle", len: panel.height / total, lenmode: "fraction", thickness: 12});
    at = bottom + panel.below;
  }
  for (const note of titles) delete note.taken;
}

function legendHeight(widths, room) {
  const column = Math.min(Math.max(...widths), room), perRow = Math.max(1, Math.floor(room / column));
  return Math.ceil(widths.length / perRow) * 20 + 14;
}

function draw(place, isDark) {
  let text = place.nextElementSibling.textContent;
  if (isDark) text = text.replace(PATTERN, (found) => DARK[found]);
  const figure = JSON.parse(text);
  arranged(figure, place.clientWidth);
  if (!place.classList.contains("js-plotly-plot")) place.replaceChildren();
  place.style.minHeight = figure.layout.height + "px";
  return Plotly.react(place, figure.data, figure.layout, CONFIG);
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
