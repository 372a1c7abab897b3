"""The look of the page: light or dark as the reader's system is, black on white on paper."""

from __future__ import annotations

CSS = """
:root{color-scheme:light dark;--paper:#fff;--panel:#f6f8fa;--ink:#1b2330;--muted:#5b6675;--line:#dfe4ea;
--measured:#39424e;--model:#0b63ce;--b1:#b4560a;--b2:#0f7f6c;--b3:#7a4fbf;--b4:#7c7300;
--good:#1a7f45;--mixed:#9a6200;--bad:#c0322b}
@media screen and (prefers-color-scheme:dark){:root{--paper:#12161c;--panel:#1a2029;--ink:#e4e8ee;--muted:#9aa5b4;
--line:#2c3541;--measured:#c3ccd8;--model:#5aa7ff;--b1:#f0a050;--b2:#4cc3ae;--b3:#b796f5;--b4:#d3c64a;
--good:#4cc27e;--mixed:#e0ad4a;--bad:#f0766e}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);line-height:1.5;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif;font-size:15px;
-webkit-text-size-adjust:100%}
main{max-width:1120px;margin:0 auto;padding:36px 24px 56px}
.kind{color:var(--muted);font-size:13px;letter-spacing:.04em;margin:0}
h1{font-size:30px;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:19px;margin:44px 0 6px;padding-top:14px;border-top:1px solid var(--line)}
h3{font-size:14px;margin:0;overflow-wrap:anywhere}
h3 small{font-weight:400;color:var(--muted);font-size:13px}
p{margin:6px 0;max-width:88ch;overflow-wrap:anywhere}
.muted,.sub{color:var(--muted)}
.small{font-size:13px}
code{font:13px ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;background:var(--panel);
padding:1px 5px;border-radius:4px;overflow-wrap:anywhere}
.verdict,.note{border-left:4px solid var(--muted);background:var(--panel);padding:12px 16px;
border-radius:0 6px 6px 0;overflow-wrap:anywhere}
.verdict{font-size:18px;margin:20px 0 10px}
.note{margin:12px 0}
.good{border-color:var(--good)}.mixed{border-color:var(--mixed)}.bad{border-color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:10px;margin:18px 0 0}
.tile{border:1px solid var(--line);border-radius:8px;padding:10px 14px}
.tile b{display:block;white-space:nowrap;font-size:22px;font-weight:600;line-height:1.3;
font-variant-numeric:tabular-nums}
.tile span{color:var(--muted);font-size:13px;overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:14px;margin:12px 0}
.one{max-width:760px;grid-template-columns:1fr}
figure{margin:0;border:1px solid var(--line);border-radius:8px;padding:12px 14px 10px;break-inside:avoid;min-width:0;
display:flex;flex-direction:column}
figcaption{margin-bottom:6px}
figure svg[role=img]{display:block;width:100%;height:auto;overflow:visible}
figure .small{margin-top:4px}
.key{width:26px;height:8px;margin-right:8px;vertical-align:middle}
.name{white-space:nowrap}
.keys{display:flex;flex-wrap:wrap;gap:2px 18px;color:var(--muted);font-size:13px;margin:4px 0}
.scroll{overflow-x:auto;margin:10px 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px}
th{font-weight:600;color:var(--muted);font-size:13px;vertical-align:bottom;border-bottom:1px solid var(--muted)}
th,td{text-align:left;padding:5px 24px 5px 0;vertical-align:top}
td{border-bottom:1px solid var(--line);overflow-wrap:break-word;max-width:60ch}
.n{text-align:right}
td.n{white-space:nowrap}
th:last-child,td:last-child{padding-right:4px}
.strong td{font-weight:600}
.wide table{width:100%}
.pairs td:first-child{white-space:nowrap;color:var(--muted)}
.pairs tr:first-child td{border-top:1px solid var(--line)}
.bar{display:inline-block;vertical-align:middle;width:72px;height:7px;margin-left:10px;border-radius:2px;
background:linear-gradient(90deg,var(--model) var(--share),var(--line) 0)}
.split{display:flex;height:26px;border-radius:6px;overflow:hidden;max-width:720px;margin:14px 0;font-size:12px;gap:2px}
.split span{padding:4px 8px;overflow:hidden;white-space:nowrap;min-width:3px;color:var(--paper);
background:var(--measured)}
.split span+span{background:var(--b2)}
.split span+span+span{background:var(--model)}
ul{margin:6px 0;padding-left:20px}
li{overflow-wrap:anywhere;max-width:90ch}
footer{margin-top:44px;padding-top:12px;border-top:1px solid var(--line);color:var(--muted);font-size:13px}
@media screen{.tall{max-height:720px;overflow-y:auto;border-bottom:1px solid var(--line)}
.tall thead th{position:sticky;top:0;background:var(--paper)}}
@media (max-width:560px){main{padding:20px 14px 40px}th,td{padding-right:14px}.bar{display:none}
.tiles{grid-template-columns:1fr 1fr}}
@media print{@page{margin:14mm}:root{color-scheme:light}body{font-size:11px}main{padding:0;max-width:none}
h1{font-size:22px}h2{font-size:15px;break-after:avoid;margin-top:22px}.verdict{font-size:13px}
.tile b{font-size:15px}.tile span,.small,.keys,h3 small,code,footer,th{font-size:10px}h3{font-size:12px}
table{font-size:11px}.tiles{grid-template-columns:repeat(6,auto)}.cards{grid-template-columns:1fr 1fr}
.one{grid-template-columns:1fr}tr,.tile,.verdict,.note{break-inside:avoid}
thead{display:table-header-group}.scroll{overflow:visible}th,td{padding-top:3px;padding-bottom:3px}
.bar,.split,.verdict,.note,.key{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
