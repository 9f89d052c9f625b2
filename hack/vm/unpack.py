"""unpack.py VMLINUZ OUT: writes the ELF kernel that is packed inside a bzImage."""
import subprocess
import sys

PACKERS = {b"\x28\xb5\x2f\xfd": ["zstd", "-dc"], b"\xfd7zXZ\x00": ["xz", "-dc"], b"\x1f\x8b\x08": ["gzip", "-dc"]}

packed = open(sys.argv[1], "rb").read()
for magic, command in PACKERS.items():
    at = packed.find(magic)
    while at >= 0:
        plain = subprocess.run(command, input=packed[at:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        if plain.startswith(b"\x7fELF"):
            with open(sys.argv[2], "wb") as out:
                out.write(plain)
            sys.exit(0)
        at = packed.find(magic, at + 1)
sys.exit("unpack.py: no ELF kernel inside " + sys.argv[1])
