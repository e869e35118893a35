#!/usr/bin/env python3
"""Asks two servers of Tempo's HTTP API the same generated queries about the same data, and shows where they answer differently.

Both must hold the data of this repository's load generator and nothing else, best the same block files. Only the standard library is used.

    compare.py --left http://HOST:PORT --right http://HOST:PORT --start SECONDS --end SECONDS [--count 300] [--seed 1]

Searches ask for a few seconds and for more traces than there are, so that every match is compared: its id, root, start, duration and the number
of spans that match. Metrics are compared value by value (relative difference of 1e-6). The exit code is 1 if there is any difference.
"""

import argparse
import json
import math
import random
import sys
import urllib.error
import urllib.parse
import urllib.request

LIMIT = 3000

TEXTS = {
    "resource.service.name": ["frontend", "checkout", "cart", "payment", "shipping", "catalog", "ad", "nobody"],
    "resource.k8s.namespace.name": ["shop", "other"],
    "resource.deployment.environment": ["prod", "test"],
    "span.http.request.method": ["GET", "POST", "PUT", "DELETE", "PATCH"],
    "span.http.route": ["/api/cart", "/api/products/{id}", "/healthz", "/", "/api/orders/{id}"],
    "span.app.user.id": ["user-00001", "user-00777", "user-19999"],
    ".http.route": ["/api/cart", "/api/search"],
    ".service.name": ["cart", "email"],
    "event.exception.type": ["TimeoutError", "OutOfStock"],
    "event:name": ["exception", "nothing"],
    "instrumentation:name": ["shop.instrumentation", "x"],
    "name": ["GET /api/cart", "POST /api/checkout", "GET /"],
    "rootName": ["GET /api/cart", "GET /"],
    "rootServiceName": ["frontend", "cart", "ad"],
    "span.missing": ["x"],
}
NUMBERS = {
    "span.http.response.status_code": [200, 404, 500, 503],
    "span.server.port": [8080, 80],
    "span.thread.id": [1, 17, 63],
    "span.app.cart.value": [0.5, 17.25, 150.0],
    "span:childCount": [0, 1, 3],
    "span.missing": [1],
}
DURATIONS = ["duration", "traceDuration"]
SPANS = ["1ms", "10ms", "45ms", "0.1s", "250ms", "1s"]
REGEXES = [".*cart.*", "GET .*", "user-0.*7", ".*/api/(cart|orders).*", "front.*|ad", "", ".+"]
GROUPS = ["resource.service.name", "span.http.route", "name", "status", "kind", "span.http.request.method", "span.app.cache.hit", "span.missing",
          "rootServiceName", "span.http.response.status_code"]
AMOUNTS = ["duration", "span.app.cart.value", "span.http.response.status_code", "span.thread.id"]


class Queries:
    """Queries from one seed."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, of):
        return self.random.choice(list(of))

    def condition(self):
        kind = self.random.random()
        if kind < 0.25:
            field = self.pick(TEXTS)
            return f'{field} {self.pick(["=", "!=", "=", "<", ">="])} "{self.pick(TEXTS[field])}"'
        if kind < 0.4:
            return f'{self.pick(TEXTS)} {self.pick(["=~", "!~"])} "{self.pick(REGEXES)}"'
        if kind < 0.6:
            field = self.pick(NUMBERS)
            return f'{field} {self.pick(["=", "!=", "<", "<=", ">", ">="])} {self.pick(NUMBERS[field])}'
        if kind < 0.72:
            return f'{self.pick(DURATIONS)} {self.pick(["<", "<=", ">", ">="])} {self.pick(SPANS)}'
        if kind < 0.8:
            return f'status {self.pick(["=", "!="])} {self.pick(["error", "ok", "unset"])}'
        if kind < 0.86:
            return f'kind {self.pick(["=", "!="])} {self.pick(["server", "client", "internal", "producer"])}'
        if kind < 0.92:
            return f'span.app.cache.hit {self.pick(["=", "!="])} {self.pick(["true", "false"])}'
        if kind < 0.97:
            return f'{self.pick([*TEXTS, *NUMBERS])} {self.pick(["!=", "="])} nil'
        return f'{self.pick(AMOUNTS[1:])} {self.pick([">", "<"])} {self.pick(AMOUNTS[1:])} {self.pick(["+", "-", "*"])} 1'

    def expression(self, depth=0):
        if depth < 2 and self.random.random() < 0.45:
            joined = f'{self.expression(depth + 1)} {self.pick(["&&", "&&", "||"])} {self.expression(depth + 1)}'
            return f"({joined})" if depth else joined
        # `!(condition)` is left out: Tempo pushes the condition down without the negation and finds nothing.
        return self.condition()

    def filter(self):
        return "{ }" if self.random.random() < 0.05 else "{ " + self.expression() + " }"

    def spanset(self):
        if self.random.random() < 0.7:
            return self.filter()
        operators = ["&&", "||", ">", ">>", "<", "<<", "~", "!>", "!>>", "!~", "!<", "!<<", "&>", "&>>", "&~", "&<", "&<<"]
        return f"{self.filter()} {self.pick(operators)} {self.filter()}"

    def search(self):
        query = self.spanset()
        kind = self.random.random()
        if kind < 0.15:
            query += f' | count() {self.pick([">", "=", "<", ">="])} {self.random.randrange(4)}'
        elif kind < 0.27:
            query += f' | {self.pick(["avg", "min", "max", "sum"])}(duration) {self.pick([">", "<"])} {self.pick(SPANS)}'
        elif kind < 0.33:
            query += f" | by({self.pick(GROUPS)}) | count() > {self.random.randrange(3)}"
        elif kind < 0.37:
            query += f" | select({self.pick(GROUPS)}, {self.pick(AMOUNTS)})"
        elif kind < 0.4:
            query += f" | {self.filter()}"
        return query

    def metrics(self):
        function = self.random.random()
        by = f" by ({self.pick(GROUPS)})" if self.random.random() < 0.6 else ""
        query = self.filter() if self.random.random() < 0.85 else self.spanset()
        if function < 0.35:
            return f"{query} | {self.pick(['rate', 'count_over_time'])}(){by}"
        if function < 0.65:
            name = self.pick(["min_over_time", "max_over_time", "avg_over_time", "sum_over_time"])
            return f"{query} | {name}({self.pick(AMOUNTS)}){by}"
        if function < 0.85:
            return f"{query} | quantile_over_time({self.pick(AMOUNTS[:1])}, {self.pick(['.5', '.9', '.5, .99'])}){by}"
        return f"{query} | histogram_over_time(duration){by}"


def ask(base, path, parameters):
    """Status and body."""
    url = f"{base}{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")


def found(body, end):
    """What a search found, by trace; without those that begin in the last second, which one side may count as inside."""
    traces = {}
    for trace in body.get("traces") or []:
        if int(trace.get("startTimeUnixNano") or 0) >= end * 1_000_000_000:
            continue
        sets = trace.get("spanSets") or ([trace["spanSet"]] if trace.get("spanSet") else [])
        matched = sorted(one.get("matched", 0) for one in sets)
        root = (trace.get("rootServiceName", ""), trace.get("rootTraceName", ""))
        traces[trace["traceID"].lstrip("0")] = (*root, trace.get("startTimeUnixNano"), trace.get("durationMs", 0), tuple(matched))
    return traces


def series(body, _end):
    """Samples by labels and time; a sample of zero is as good as none."""
    found = {}
    for one in body.get("series") or []:
        labels = json.dumps(sorted((label["key"], sorted(label["value"].items())) for label in one.get("labels") or []))
        for sample in one.get("samples") or []:
            value = float(sample.get("value", 0))
            if value and not math.isnan(value):
                found[labels, int(sample["timestampMs"])] = value
    return found


def differences(left, right):
    """A few of the entries that differ."""
    differing = []
    for key in sorted(set(left) | set(right), key=str):
        a, b = left.get(key), right.get(key)
        close = isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-6)
        if a != b and not close:
            differing.append(f"{key}: {a} | {b}")
    return differing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--left", required=True)
    parser.add_argument("--right", required=True)
    parser.add_argument("--start", type=int, required=True, help="where the data begins, in seconds")
    parser.add_argument("--end", type=int, required=True, help="where it ends")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    queries, bad, equal, refused, empty, cut = Queries(options.seed), 0, 0, 0, 0, 0
    for number in range(options.count):
        if queries.random.random() < 0.6:
            path, width, text = "/api/search", queries.random.randrange(2, 9), queries.search()
            more, read = {"limit": LIMIT, "spss": 1}, found
        else:
            step = queries.pick([5, 10, 30])
            path, width, text = "/api/metrics/query_range", step * queries.random.randrange(3, 12), queries.metrics()
            more, read = {"step": f"{step}s"}, series
        start = queries.random.randrange(options.start, max(options.start + 1, options.end - width))
        if read is series:
            start -= start % step
        parameters = {"q": text, "start": start, "end": start + width, **more}
        (a, left), (b, right) = ask(options.left, path, parameters), ask(options.right, path, parameters)
        if a != b:
            bad += 1
            print(f"#{number} {path} {parameters}\n  status {a} | {b}: {str(left)[:200]} | {str(right)[:200]}")
            continue
        if a != 200:
            refused += 1
            continue
        shown = max(len(left.get("traces") or []), len(right.get("traces") or []))
        left, right = read(left, start + width), read(right, start + width)
        if shown >= LIMIT:
            # Which of them are shown is the server's choice.
            cut += 1
            continue
        differing = differences(left, right)
        if differing:
            bad += 1
            print(f"#{number} {path} {parameters}\n  {len(differing)} of {len(set(left) | set(right))} differ, such as (left | right):")
            print("".join(f"    {one}\n" for one in differing[:3]), end="")
        else:
            equal += 1
            empty += not left
    print(f"{options.count} queries, seed {options.seed}: {equal} equal ({empty} of them without a result), {refused} refused by both, "
          f"{cut} with too many traces to compare, {bad} different")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
