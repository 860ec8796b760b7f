#!/usr/bin/env python3
"""Writes the bill of materials (CycloneDX 1.5) and the licences of all crates in the daemon's binary.

  scripts/sbom.py DIRECTORY    writes waltide.cdx.json and THIRD-PARTY-LICENSES.txt there

What is asked is cargo itself, so it needs nothing but the crates in cargo's own cache. The output is
the same for the same Cargo.lock. Fails where a crate brings no licence.
"""

import json
import pathlib
import subprocess
import sys

TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu")
LICENCES = ("LICENSE", "LICENCE", "COPYING", "UNLICENSE", "NOTICE", "COPYRIGHT")


def metadata():
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    for target in TARGETS:
        command += ["--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def shipped(said):
    """The crates that are in the binary: neither for tests nor for builds alone."""
    packages = {package["id"]: package for package in said["packages"]}
    nodes = {node["id"]: node for node in said["resolve"]["nodes"]}
    ours = next(p["id"] for p in said["packages"] if p["name"] == "waltide" and not p["source"])
    found, open_ = set(), [ours]
    while open_:
        one = open_.pop()
        if one in found:
            continue
        found.add(one)
        if packages[one]["name"].endswith("-src"):
            continue  # what it depends on builds it
        for dependency in nodes[one]["deps"]:
            kinds = {kind["kind"] for kind in dependency["dep_kinds"]}
            # Crates named -src bring the sources of C libraries, which end up in the binary.
            if None in kinds or ("build" in kinds and packages[dependency["pkg"]]["name"].endswith("-src")):
                open_.append(dependency["pkg"])
    return [packages[one] for one in sorted(found, key=lambda i: (packages[i]["name"], packages[i]["version"]))]


def checksums():
    """The crates' checksums, from Cargo.lock."""
    found = {}
    for block in pathlib.Path("Cargo.lock").read_text().split("[[package]]")[1:]:
        fields = dict(line.split(" = ", 1) for line in block.splitlines() if " = " in line and "[" not in line)
        name, version = fields["name"].strip('"'), fields["version"].strip('"')
        found[name, version] = fields.get("checksum", "").strip('"')
    return found


def component(package, sums):
    name, version = package["name"], package["version"]
    made = {
        "type": "library",
        "bom-ref": f"pkg:cargo/{name}@{version}",
        "name": name,
        "version": version,
        "purl": f"pkg:cargo/{name}@{version}",
        "licenses": [{"expression": (package["license"] or "").replace("/", " OR ")}],
    }
    if sums.get((name, version)):
        made["hashes"] = [{"alg": "SHA-256", "content": sums[name, version]}]
    if package["repository"]:
        made["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return made


def texts(package):
    """The licence files that a crate brings, and those of the C libraries that it builds in."""
    place = pathlib.Path(package["manifest_path"]).parent
    files = [f for f in place.iterdir() if f.is_file() and f.name.upper().startswith(LICENCES)]
    if package["name"].endswith(("-sys", "-src")) or package["name"] == "libz-sys":
        below = (f for f in place.glob("*/*") if f.is_file() and f.name.upper().startswith(LICENCES))
        files += below
    return [(str(f.relative_to(place)), f.read_text(errors="replace").strip()) for f in sorted(files)]


def main():
    target = pathlib.Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    crates = shipped(metadata())
    ours = [crate for crate in crates if not crate["source"]]
    theirs = [crate for crate in crates if crate["source"]]
    version = next(crate["version"] for crate in ours if crate["name"] == "waltide")
    unlicensed = [crate["name"] for crate in theirs if not crate["license"]]
    if unlicensed:
        sys.exit(f"sbom: no licence is named by: {', '.join(unlicensed)}")
    sums = checksums()
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": f"pkg:cargo/waltide@{version}",
                "name": "waltide",
                "version": version,
                "licenses": [{"expression": "Apache-2.0"}],
            }
        },
        "components": [component(crate, sums) for crate in theirs],
    }
    (target / "waltide.cdx.json").write_text(json.dumps(bill, indent=1) + "\n")
    with open(target / "THIRD-PARTY-LICENSES.txt", "w") as out:
        out.write(f"What the binary of waltide {version} is made of, and under which licences.\n")
        for crate in theirs:
            out.write(f"\n{'=' * 78}\n{crate['name']} {crate['version']}: {crate['license']}\n")
            for name, text in texts(crate):
                out.write(f"\n--- {name}\n{text}\n")
    print(f"sbom: {len(theirs)} crates")


if __name__ == "__main__":
    main()
