"""The style sheet of all our pages: dark on light, readable on a phone, fit to print."""

SORTABLE_COLUMNS = 24
"""Most columns of a table that can be sorted by any of them."""

MODEL_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5d6675")
"""Of models in charts, told apart by colour-blind readers too (Okabe and Ito)."""

# The radio button that is checked says which of a row's places is its order.
_SORTING = "".join(
    f".sorter>input:nth-of-type({k + 1}):checked~.scroll tbody tr{{order:var(--s{k})}}"
    f".sorter>input:nth-of-type({k + 1}):checked~.scroll th:nth-child({k + 1}) label::after"
    '{content:" \\25be"}'
    f".sorter>input:nth-of-type({k + 1}):focus-visible~.scroll th:nth-child({k + 1}) label"
    "{outline:2px solid var(--accent);outline-offset:2px}\n"
    for k in range(SORTABLE_COLUMNS)
)
_MODELS = "".join(f".m{k}{{fill:{colour}}}\n" for k, colour in enumerate(MODEL_COLOURS))

STYLE = """
:root{--ink:#1c2128;--muted:#5d6675;--line:#e1e5ea;--soft:#f5f6f8;--paper:#fff;--accent:#0b62a8;
--good:#0072b2;--bad:#d55e00;--green:#14773f;--red:#b3261e;--amber:#8a5a00}
*{box-sizing:border-box}
html{scroll-behavior:smooth;scroll-padding-top:16px;-webkit-text-size-adjust:100%}
body{margin:0;color:var(--ink);background:var(--paper);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;display:grid;
grid-template-columns:190px minmax(0,1120px);gap:0 40px;padding:0 32px;justify-content:center}
nav{position:sticky;top:0;align-self:start;max-height:100vh;overflow:auto;padding:40px 0 24px;
font-size:13.5px}
nav a{display:block;padding:5px 0 5px 12px;border-left:2px solid var(--line);color:var(--muted);
text-decoration:none}
nav a:hover{color:var(--accent);border-color:var(--accent)}
main{padding:32px 0 48px;min-width:0}
h1{font-size:28px;line-height:1.2;letter-spacing:-.01em;margin:0 0 10px;overflow-wrap:anywhere}
h2{font-size:20px;line-height:1.3;margin:0 0 12px;padding-top:20px;
border-top:1px solid var(--line)}
h3{font-size:15px;margin:22px 0 10px}
section{margin-top:36px}
p{margin:0 0 12px;max-width:76ch}
a{color:var(--accent)}
.muted,footer{color:var(--muted);font-size:13px}
footer{margin-top:48px;border-top:1px solid var(--line);padding-top:14px}
.facts{display:flex;flex-wrap:wrap;gap:4px 22px;margin:0;color:var(--muted);font-size:13.5px}
.facts div{display:flex;gap:6px}.facts dd{margin:0;color:var(--ink);overflow-wrap:anywhere}
.headline{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:12px;
margin:0 0 14px}
.headline div{border:1px solid var(--line);border-radius:10px;padding:12px 14px}
.headline b{display:block;font-size:27px;line-height:1.2;font-weight:600;letter-spacing:-.02em;
font-variant-numeric:tabular-nums}
.headline span{color:var(--muted);font-size:13px}
.note{background:#fff8e6;border-left:3px solid #e0a800;border-radius:0 6px 6px 0;padding:9px 13px;
margin:0 0 10px;max-width:90ch}
.footnotes{color:var(--muted);font-size:13px;margin:0 0 12px;padding-left:20px}
sup{line-height:0;font-size:60%;color:var(--muted);font-weight:400}td sup,th sup{font-size:75%}
.scroll{overflow-x:auto;margin:0 0 14px}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums}
th,td{padding:6px 14px 6px 0;text-align:right;border-bottom:1px solid var(--line);
vertical-align:top}
thead th{color:var(--muted);font-weight:500;vertical-align:bottom;min-width:64px}
tbody th{text-align:left;font-weight:400;overflow-wrap:break-word;max-width:320px}
.figures td{white-space:nowrap}
thead th:first-child{text-align:left}
td:last-child,th:last-child{padding-right:0}
tr.marked>*{font-weight:600}td b{font-weight:650}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(300px,100%),1fr));
gap:18px 28px;
margin:8px 0 16px}
.charts figure{margin:0;min-width:0}.charts figcaption{font-weight:600;font-size:13.5px}
svg{width:100%;height:auto;display:block;overflow:visible}
svg text{font-size:11.5px;fill:var(--muted)}svg text.label{fill:var(--ink);font-size:12px}
.grid{stroke:var(--line)}.axis{stroke:#aeb6c1}.guess{stroke:#aeb6c1;stroke-dasharray:3 4}
polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}
.first{stroke:var(--good)}.second{stroke:var(--bad)}line.first,line.second{stroke-width:2}
.dot{stroke:none}.dot.first{fill:var(--good)}.dot.second{fill:var(--bad)}
rect.good,rect.bar{fill:var(--good)}rect.bad{fill:var(--bad)}rect.track{fill:#edf0f3}
.threshold{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4}
.marker{fill:var(--paper);stroke:var(--bad);stroke-width:2.5}
.case{display:grid;grid-template-columns:170px repeat(5,minmax(0,1fr));gap:10px;padding:14px 0;
border-bottom:1px solid var(--line);scroll-margin-top:8px}
.case:target{background:#f0f6fc;box-shadow:0 0 0 8px #f0f6fc}
.case figure,.tile figure{margin:0;min-width:0}
figcaption{color:var(--muted);font-size:12px;margin-bottom:3px}
.charts figcaption{color:var(--ink);font-size:13.5px;margin-bottom:4px}
img{display:block;width:100%;height:auto;border-radius:4px;background:var(--soft)}
.empty{display:flex;align-items:center;justify-content:center;text-align:center;padding:6px;
color:var(--muted);background:var(--soft);border-radius:4px;font-size:12px;line-height:1.3}
.info{min-width:0;font-size:13px;line-height:1.4}
.info b{font-size:18px;font-variant-numeric:tabular-nums;display:block;margin:5px 0 0}
.path{color:var(--muted);font-size:12px;overflow-wrap:anywhere}
.badge{display:inline-block;border-radius:20px;padding:1px 9px;font-size:12px;font-weight:600;
background:var(--soft);color:var(--muted);white-space:nowrap}
.badge.found,.badge.passed{color:var(--green);background:#e6f4ec}
.badge.missed{color:var(--red);background:#fdeceb}.badge.false-alarm{color:var(--amber);
background:#fdf3dc}
.gauge{position:relative;height:5px;border-radius:3px;background:#e6e9ee;margin:6px 0 8px}
.gauge i{position:absolute;inset:0 auto 0 0;border-radius:3px;background:var(--muted)}
.gauge.over i{background:var(--bad)}
.gauge u{position:absolute;top:-3px;bottom:-3px;width:2px;margin-left:-1px;background:var(--ink)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(164px,1fr));gap:16px;
margin:0 0 16px}
.tile{color:inherit;text-decoration:none;min-width:0}
.tile .pair{display:grid;grid-template-columns:1fr 1fr;gap:4px;margin-bottom:5px}
.tile:hover .pair{outline:2px solid var(--accent);outline-offset:2px;border-radius:4px}
.mosaic{display:grid;grid-template-columns:repeat(auto-fill,minmax(84px,1fr));gap:6px;
margin:0 0 16px}
.sides{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(360px,100%),1fr));gap:0 32px}
.sides h3{margin-top:8px}.matrix{max-width:260px;margin:0 0 16px}path.bars{fill:var(--good)}
.colourbar{display:flex;align-items:center;gap:9px;max-width:520px;margin:26px 0 16px;
font-size:12.5px;
font-variant-numeric:tabular-nums}
.ramp{position:relative;flex:1;height:12px;border-radius:3px}
.mark{position:absolute;top:-4px;bottom:-4px;width:2px;margin-left:-1px;background:var(--ink);
box-shadow:0 0 0 1px var(--paper)}
.mark span{position:absolute;bottom:100%;left:0;white-space:nowrap;font-style:normal;
line-height:1.4}
.mark.left span{left:auto;right:0}
.zoom{display:block;cursor:zoom-in}.zoom input{position:absolute;opacity:0;pointer-events:none}
.zoom input:focus-visible+img{outline:2px solid var(--accent);outline-offset:2px}
.zoom input:checked+img{position:fixed;inset:0;z-index:9;width:100vw;height:100vh;padding:3vmin;
object-fit:contain;border-radius:0;background:rgba(20,24,30,.93);cursor:zoom-out}
details{margin:0 0 10px}summary{cursor:pointer;font-weight:600}
.settings{margin-top:8px}.settings td{text-align:left;overflow-wrap:anywhere;min-width:120px}
.settings thead{display:none}
.versus td,.versus th{padding:8px 12px 8px 0;text-align:left;width:212px;min-width:150px}
.sorter{position:relative}
.sorter>input{position:absolute;left:0;top:0;opacity:0;pointer-events:none}
.sortable{display:grid;width:max-content;max-width:none;
grid-template-columns:repeat(var(--columns),auto)}
.sortable thead,.sortable tbody{display:contents}
.sortable tr{display:grid;grid-column:1/-1;grid-template-columns:subgrid}
.sortable thead tr{order:-1}.sortable thead th{align-self:end}
.sortable label{cursor:pointer}.sortable label:hover{color:var(--accent)}
.sortable thead th:not(:first-child){max-width:130px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:0 0 10px;font-size:13.5px}
.legend span{display:flex;align-items:center;gap:6px}.legend svg{width:12px;height:12px}
.charts.wide{grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr))}
.whisker{stroke:var(--ink)}
@media(max-width:960px){
body{display:block;padding:0 16px}
nav{display:flex;gap:16px;white-space:nowrap;overflow-x:auto;background:var(--paper);
padding:10px 16px;
margin:0 -16px;border-bottom:1px solid var(--line);z-index:5;scrollbar-width:none}
nav a{border:0;padding:0}
html{scroll-padding-top:52px}main{padding-top:20px}h1{font-size:23px}
.case{grid-template-columns:repeat(3,minmax(0,1fr));scroll-margin-top:8px}
.headline{grid-template-columns:repeat(auto-fit,minmax(104px,1fr));gap:8px}
.headline b{font-size:22px}.headline div{padding:9px 11px}}
@media print{nav{display:none}body{display:block}.case,.tile,figure{break-inside:avoid}
details>*{display:block}}
"""

STYLE += _SORTING + _MODELS
