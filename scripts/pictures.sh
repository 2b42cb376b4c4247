#!/usr/bin/env bash
# Pictures of a report for the documentation: its key figures, and each of its charts in light colours
# at desktop width, as PNG files named after them.
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
        grep -v '^</body>' "$report" | grep -v '^</html>' || true
        cat <<END
<style>
  body > *:not(main), main > *:not(.kept), .charts > *:not(.kept) { display: none !important; }
  main > .kept > h2, main > .kept > .about { display: none; }
  body { padding: 0; max-width: none; } .tiles, .charts { gap: 10px; margin: 0; } .card, .tile, .chart { border-radius: 8px; }
  .chart .legend { position: static; padding: 4px 0; border: 0; margin: 0; background: none; gap: 14px; }
  .chart .legend button { border: 0; padding: 0; background: none; }
  .charts:has(.kept) { grid-template-columns: minmax(0, 1fr); } main > .kept { margin: 0; }
</style>
<script>
  addEventListener("load", () => {
    const part = $part;
    part.classList.add("kept");
    part.closest("section").classList.add("kept");
    // In the page the legend is always in sight, here it has to be inside.
    const legend = document.querySelector(".legend").cloneNode(true);
    if (part.matches(".chart")) part.querySelector("figcaption").after(legend);
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

picture summary 1180 'document.querySelector(".tiles")'
grep -o 'class="plot" id="[a-z0-9-]*"' "$report" | sed 's/.*id="\(.*\)"/\1/' | while read -r chart; do
    picture "$chart" 720 "document.getElementById(\"$chart\").closest(\"figure\")" </dev/null
done
if grep -q 'id="restore"' "$report"; then
    picture restore 1180 'document.getElementById("restore").closest("section").querySelector(".card")'
fi
