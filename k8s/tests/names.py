"""A name server as small as a cluster's can be: `python3 names.py ADDRESS...` answers A and AAAA from a JSON object on its input.

The object maps a full name without its last dot to a list of addresses. Other names do not exist.
"""

import ipaddress
import json
import select
import socket
import struct
import sys

A, AAAA, NO_SUCH_NAME = 1, 28, 3


def question(query):
    """The name in lower case, the type, and where the question ends."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    (kind,) = struct.unpack(">H", query[at + 1 : at + 3])
    return ".".join(labels), kind, at + 5


def answer(query, names):
    name, kind, end = question(query)
    found = [ipaddress.ip_address(address) for address in names.get(name, [])]
    records = [address.packed for address in found if kind == (A if address.version == 4 else AAAA)]
    flags = 0x8580 if name in names else 0x8580 | NO_SUCH_NAME
    head = query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0)
    body = b"".join(struct.pack(">HHHIH", 0xC00C, kind, 1, 1, len(packed)) + packed for packed in records)
    return head + query[12:end] + body


def main():
    names = json.load(sys.stdin)
    sockets = []
    for address in sys.argv[1:]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_DGRAM)
        listener.bind((address, 53))
        sockets.append(listener)
    print("listening", flush=True)
    while True:
        for listener in select.select(sockets, [], [])[0]:
            query, client = listener.recvfrom(512)
            try:
                listener.sendto(answer(query, names), client)
            except (IndexError, struct.error, UnicodeDecodeError):
                pass


if __name__ == "__main__":
    main()
