#!/usr/bin/env bash
# What deploy/ has is understood by those who are to read it: the units by `systemd-analyze verify`, and the JobSet by
# the schema that JobSet publishes. What a check needs and this machine does not have is said, and left out.
#
#   scripts/deploy.sh [--crd FILE]
#
# --crd FILE   the schema: config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml of
#              https://github.com/kubernetes-sigs/jobset (0.8 MB, therefore not in this repository). It needs Python
#              with the packages pyyaml and jsonschema.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

crd=
while [ $# -gt 0 ]; do
    case $1 in
    --crd) crd=${2:?--crd needs a file}; shift 2 ;;
    *) echo "deploy: unknown option $1; see the head of $0" >&2; exit 2 ;;
    esac
done

fail() {
    printf 'deploy: %s\n' "$@" >&2
    exit 1
}

say "deploy/systemd"
if command -v systemd-analyze >/dev/null; then
    units=$(mktemp -d)
    trap 'rm -rf "$units"' EXIT
    for unit in deploy/systemd/*.service; do
        # It asks whether the programs are there, which on this machine they need not be.
        sed 's|^ExecStart=/usr/local/bin/alluvium |ExecStart=/bin/true |' "$unit" >"$units/$(basename "$unit")"
        cmp -s "$unit" "$units/$(basename "$unit")" && fail "$unit does not start alluvium"
    done
    # A template is looked at as one of its instances.
    mv "$units/alluvium-job@.service" "$units/alluvium-job@one.service"
    for unit in "$units"/*.service; do
        said=$(systemd-analyze verify --man=no "$unit" 2>&1) || fail "$unit:" "$said"
        # What it does not know it ignores, and says so. Of other units of this machine it speaks as well.
        ! grep -F "$(basename "$unit")" <<<"$said" || fail "$(basename "$unit") is not understood"
    done
    printf '   %s is content\n' "$(systemd-analyze --version | head -n 1)"
else
    printf '   not checked: there is no systemd-analyze\n'
fi

say "deploy/kubernetes"
if [ -z "$crd" ]; then
    printf '   not checked: name the schema by --crd\n'
    exit
fi
python3 - "$crd" deploy/kubernetes/jobset.yaml <<'PYTHON'
import sys

import jsonschema
import yaml


def closed(schema):
    """Fields that the schema does not know are mistakes: the server would drop them in silence."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        if schema.pop("x-kubernetes-int-or-string", False):
            schema.pop("type", None)
            schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        for part in schema.values():
            closed(part)
    elif isinstance(schema, list):
        for part in schema:
            closed(part)


crd = yaml.safe_load(open(sys.argv[1]))
documents = [document for document in yaml.safe_load_all(open(sys.argv[2])) if document]
jobsets = [document for document in documents if document["kind"] == crd["spec"]["names"]["kind"]]
assert len(jobsets) == 1, "one JobSet"
for jobset in jobsets:
    version = jobset["apiVersion"].split("/")[1]
    schemas = [v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == version]
    assert schemas, f"the schema has no version {version}"
    schema = schemas[0]
    closed(schema)
    # Its content is not part of a resource's own schema.
    schema["properties"]["metadata"] = {"type": "object"}
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(jobset))
    for error in errors:
        print(f"{'/'.join(map(str, error.absolute_path))}: {error.message[:300]}", file=sys.stderr)
    if errors:
        sys.exit(1)
    print(f"   {jobset['metadata']['name']} is a JobSet of version {version}")
PYTHON
