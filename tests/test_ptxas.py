#!/usr/bin/env python3
"""What ptxas reports about our kernels, for every device: no spills, no more shared memory than a block can
have, and registers and shared memory that leave room for the blocks tests/data/ptxas_plan.txt counts on.

usage: tests/test_ptxas.py DIRECTORY DEVICES     the .ptxas files of a build; "80 89 90a ...", which must all occur
Checks its own reading on planted reports first.  Prints a line a device; exits 1 with every fault found."""
import fnmatch, glob, os, re, subprocess, sys

PLAN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "ptxas_plan.txt")
BLOCK_SHARED = 227 * 1024  # of a block on sm_90 and sm_100
# Shared memory of a multiprocessor; 1 KiB of it goes with each block.
SM_SHARED = {"80": 164, "89": 100, "90": 228, "90a": 228, "100": 228, "120": 100}


def parse(text):
    """[{name, device, spills, registers, shared}] of the entry functions in a report."""
    out, entry = [], {}
    for line in text.split("\n"):
        if m := re.search(r"Compiling entry function '(\S+)' for 'sm_(\w+)'", line):
            entry = {"name": m[1], "device": m[2], "spills": 0}
            out.append(entry)
        elif m := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            # Functions that a kernel calls have lines of their own, before its registers.
            entry["spills"] = entry.get("spills", 0) + int(m[1]) + int(m[2])
        elif m := re.search(r"Used (\d+) registers", line):
            entry["registers"] = int(m[1])
            entry["shared"] = int(s[1]) if (s := re.search(r"(\d+) bytes smem", line)) else 0
    return out


def plan_lines(text):
    out = []
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if not 3 <= len(words) <= 5 or not all(w.isdigit() for w in words[1:4]):
            raise SystemExit("ptxas_plan.txt:%d: expected kernel, threads, blocks, shared bytes, devices" % number)
        out.append({"kernel": words[0], "threads": int(words[1]), "blocks": int(words[2]),
                    "shared": int(words[3]) if len(words) > 3 else 0,
                    "devices": words[4].split(",") if len(words) > 4 else None, "used": False})
    return out


def faults(entries, plan):
    bad = []
    for e in entries:
        where = "%s on sm_%s" % (e["name"], e["device"])
        if "registers" not in e:
            bad.append("%s: no line about registers" % where)
            continue
        if e["spills"]:
            bad.append("%s: spills %d bytes" % (where, e["spills"]))
        if e["shared"] > BLOCK_SHARED:
            bad.append("%s: %d bytes of shared memory, a block has %d" % (where, e["shared"], BLOCK_SHARED))
        for p in plan:
            if not fnmatch.fnmatchcase(e["name"], p["kernel"]) or (p["devices"] and e["device"] not in p["devices"]):
                continue
            p["used"] = True
            most = 65536 // (p["threads"] * p["blocks"]) // 8 * 8
            if e["registers"] > most:
                bad.append("%s: %d registers; %d blocks of %d threads need at most %d"
                           % (where, e["registers"], p["blocks"], p["threads"], most))
            shared = e["shared"] + p["shared"]
            room = SM_SHARED[e["device"]] * 1024
            if shared > BLOCK_SHARED or (shared + 1024) * p["blocks"] > room:
                bad.append("%s: %d bytes of shared memory; %d blocks do not fit into %d"
                           % (where, shared, p["blocks"], room))
    return bad + ["ptxas_plan.txt: no kernel is named %s" % p["kernel"] for p in plan if not p["used"]]


def planted(registers=32, spill=0, shared=0):
    return ("ptxas info    : Compiling entry function 'k' for 'sm_80'\n"
            "ptxas info    : Function properties for k\n"
            "    0 bytes stack frame, %d bytes spill stores, 0 bytes spill loads\n"
            "ptxas info    : Used %d registers, used 1 barriers, %d bytes smem, 400 bytes cmem[0]\n"
            % (spill, registers, shared))


def check_self():
    assert faults(parse(planted()), plan_lines("k 256 8")) == []
    for report, text, words in [(planted(spill=8), "", "spills 8"), (planted(shared=250000), "", "a block has"),
                                (planted(registers=40), "k 256 8", "at most 32"),
                                (planted(shared=10000), "k* 128 16", "do not fit"),
                                (planted(), "k 128 2 90000", "do not fit"), (planted(), "other 32 1", "no kernel")]:
        found = faults(parse(report), plan_lines(text))
        assert len(found) == 1 and words in found[0], (text, found)


def main():
    check_self()
    folder, devices = sys.argv[1], sys.argv[2].split()
    entries = []
    for path in sorted(glob.glob(os.path.join(folder, "**", "*.ptxas"), recursive=True)):
        entries += parse(open(path, encoding="utf-8", errors="replace").read())
    names = subprocess.run(["c++filt", "-p"], input="\n".join(e["name"] for e in entries), capture_output=True,
                           text=True, check=True).stdout.split("\n")
    for e, name in zip(entries, names):
        e["name"] = name.removeprefix("void ").replace(" ", "")
    bad = faults(entries, plan_lines(open(PLAN, encoding="utf-8").read()))
    for d in devices:
        here = [e for e in entries if e["device"] == d]
        if not here:
            bad.append("no kernel was built for sm_%s" % d)
            continue
        most = max(here, key=lambda e: e.get("registers", 0))
        print("ptxas sm_%-4s %d kernels, at most %d registers (%s), %d bytes of static shared memory"
              % (d, len(here), most.get("registers", 0), most["name"][:60], max(e.get("shared", 0) for e in here)))
    for line in bad:
        print("ptxas: " + line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
