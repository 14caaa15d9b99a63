// The style sheet of the pages that this program writes.
#pragma once

namespace seer {

/// Colours are Okabe and Ito's, which stay apart for the common kinds of colour blindness; lighter in the
/// dark.
inline constexpr const char* kReportStyle = R"css(
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --soft: #5b6570; --rule: #d7dce1; --band: #f4f6f8; --heat: #004b85;
  --s0: #0072b2; --s1: #009e73; --s2: #d55e00; --s3: #b0538a; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171a; --ink: #e8ebee; --soft: #a2abb5; --rule: #363c43; --band: #1d2125; --heat: #56b4e9;
  --s0: #56b4e9; --s1: #35c79c; --s2: #f28e4b; --s3: #e29cc6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 74rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.75rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.02rem; margin: 2rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
.soft, figcaption { color: var(--soft); font-size: .9rem; }
figcaption { max-width: 46rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem 0 .38rem 1.6rem; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; vertical-align: top; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); font-weight: 600; white-space: normal; }
tbody th { font-weight: 500; }
tr.dense > * { background: var(--band); }
tr.reference > * { color: var(--soft); font-style: italic; }
td small { display: block; color: var(--soft); font-size: .8rem; }
td strong::before { content: "\2605\a0"; font-size: .8em; }
.facts th { padding-left: 0; }
.facts th, .facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
figure { margin: .5rem 0 1.5rem; }
.charts { display: grid; gap: 1rem 1.5rem; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); }
.charts > svg { width: 100%; max-width: 34rem; height: auto; }
.maps { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.heat { max-width: 100%; height: auto; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .25rem 0 .5rem; font-size: .9rem; }
.legend span { display: inline-flex; align-items: center; gap: .45rem; }
.key { width: 30px; height: 12px; }
svg text { fill: var(--ink); font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
svg .title { font-weight: 600; font-size: 13px; }
svg .tick, svg .label { fill: var(--soft); }
svg .middle { text-anchor: middle; } svg .end { text-anchor: end; }
svg .grid { stroke: var(--rule); stroke-width: 1; fill: none; }
svg .axis { stroke: var(--soft); stroke-width: 1; fill: none; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg .mark { stroke: var(--paper); stroke-width: 1; }
svg .line.s0 { stroke: var(--s0); } svg .mark.s0 { fill: var(--s0); }
svg .line.s1 { stroke: var(--s1); } svg .mark.s1 { fill: var(--s1); }
svg .line.s2 { stroke: var(--s2); } svg .mark.s2 { fill: var(--s2); }
svg .line.s3 { stroke: var(--s3); } svg .mark.s3 { fill: var(--s3); }
svg .line.ideal { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .line.paper { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 2 3; }
svg .mark.paper { fill: var(--paper); stroke: var(--ink); stroke-width: 1.3; }
svg .cell { fill: var(--heat); stroke: var(--rule); stroke-width: 1; stroke-opacity: 1; }
svg text.over { fill: var(--paper); }
.attention { display: grid; gap: .75rem 1rem; grid-template-columns: repeat(auto-fill, minmax(var(--map), 1fr)); }
.attention figure { margin: 0; break-inside: avoid; }
.attention .pair { display: flex; flex-wrap: wrap; gap: 6px; }
.attention img { width: 136px; height: 136px; image-rendering: pixelated; border: 1px solid var(--rule); }
.attention figcaption { font-size: .8rem; line-height: 1.35; }
.swatch { width: 14px; height: 14px; border: 1px solid var(--rule); }
.ramp { width: 140px; height: 14px; border: 1px solid var(--rule); }
@media print { :root { color-scheme: light;
  --paper: #ffffff; --ink: #000000; --soft: #444444; --rule: #bbbbbb; --band: #ffffff; --heat: #004b85;
  --s0: #0072b2; --s1: #009e73; --s2: #d55e00; --s3: #b0538a; }
  figure, table, .charts > svg { break-inside: avoid; } h2, h3, h4 { break-after: avoid; }
  table { font-size: .72rem; } th, td { padding-left: .7rem; } .scroll { overflow: visible; } }
)css";

}  // namespace seer
