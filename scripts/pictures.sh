#!/usr/bin/env bash
# Pictures of a report for the documentation: its key figures, and each of its charts in light colours
# at desktop width, as PNG files named after them. A chart's legend has only the runs that the chart shows.
#   scripts/pictures.sh REPORT.html OUTDIR
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

[ $# -eq 2 ] || {
    echo "usage: scripts/pictures.sh REPORT.html OUTDIR" >&2
    exit 2
}
report=$1
out=$2
[ -f "$report" ] || {
    echo "pictures: $report does not exist; alluvium report makes it" >&2
    exit 1
}
chromium=
for name in "${ALLUVIUM_CHROMIUM:-chromium}" chromium chromium-browser google-chrome chrome; do
    chromium=$(command -v "$name") && break
done
[ -n "$chromium" ] || {
    echo "pictures: no Chromium was found; scripts/setup.sh --browser installs one" >&2
    exit 1
}

mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The page with one part of it alone, and the height of that part in the document's title.
only() {
    local part=$1
    {
        sed 's|</body>||; s|</html>||' "$report"
        cat <<END
<style>
  .aside { display: none !important; }
  .kept > h2, .kept > .about { display: none; }
  body { padding: 0; max-width: none; } .tiles, .charts { gap: 10px; margin: 0; } .card, .tile, .chart { border-radius: 8px; }
  .chart .legend { position: static; padding: 4px 0; border: 0; margin: 0; background: none; gap: 14px; }
  .chart .legend button { border: 0; padding: 0; background: none; }
  .charts:has(.kept) { grid-template-columns: minmax(0, 1fr); }
</style>
<script>
  // The runs that the chart has a line or a bar of. In the page one legend stands for all charts.
  function legendOf(part) {
    const model = JSON.parse(document.getElementById("model").textContent);
    const chart = model.charts.find((chart) => chart.id === part.querySelector(".plot").id);
    const groups = new Set(chart.lines.map((line) => line.group));
    if (chart.shaded) {
      for (const mark of model.marks) if (mark.section === chart.section) groups.add(mark.group);
    }
    const legend = part.closest(".work").querySelector(".legend").cloneNode(true);
    for (const button of legend.querySelectorAll("button")) {
      if (!groups.has(Number(button.dataset.group))) button.remove();
    }
    return legend;
  }
  addEventListener("load", () => {
    const part = $part;
    part.classList.add("kept");
    if (part.matches(".chart")) part.querySelector("figcaption").after(legendOf(part));
    for (let inside = part; inside !== document.body; inside = inside.parentElement) {
      for (const other of inside.parentElement.children) {
        if (other !== inside && !other.matches("script, style")) other.classList.add("aside");
      }
      inside.style.margin = inside.style.padding = 0;
      if (inside === part) inside.style.padding = "";
    }
    dispatchEvent(new Event("resize"));
    document.title = \`height \${Math.ceil(part.getBoundingClientRect().bottom)}\`;
  });
</script>
</body>
</html>
END
    } >"$scratch/page.html"
}

browse() {
    "$chromium" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
        --disable-component-update --disable-sync --hide-scrollbars --user-data-dir="$scratch/profile" \
        --blink-settings=preferredColorScheme=1 --virtual-time-budget=3000 "$@" "file://$scratch/page.html" 2>"$scratch/log"
}

# picture NAME WIDTH PART: first the part's height, then the picture of that size.
picture() {
    local name=$1 width=$2 height
    only "$3"
    height=$(browse --window-size="$width,2000" --dump-dom | sed -n 's/.*<title>height \([0-9]*\)<.*/\1/p' | head -n 1)
    [ -n "$height" ] || {
        echo "pictures: $report has no $name, or the browser failed:" >&2
        cat "$scratch/log" >&2
        exit 1
    }
    browse --window-size="$width,$height" --force-device-scale-factor=2 --screenshot="$out/$name.png" >/dev/null
    echo "$out/$name.png"
}

# A report of several workloads has a section for each; in those after the first one the names end in its number.
sections=$(grep -o '<section class="work"' "$report" | wc -l)
for ((section = 0; section < sections; section++)); do
    suffix=
    ((section == 0)) || suffix=-$((section + 1))
    picture "summary$suffix" 1180 "document.querySelectorAll('.work')[$section].querySelector('.tiles')"
    if grep -q "id=\"restore$suffix\"" "$report"; then
        picture "restore$suffix" 1180 "document.getElementById('restore$suffix').closest('section').querySelector('.card')"
    fi
done
grep -o 'class="plot" id="[a-z0-9-]*"' "$report" | sed 's/.*id="\(.*\)"/\1/' | while read -r chart; do
    picture "$chart" 720 "document.getElementById(\"$chart\").closest(\"figure\")" </dev/null
done
