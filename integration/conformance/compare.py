#!/usr/bin/env python3
"""Asks two servers of Tempo's HTTP API the same generated queries about the same data, and shows where they answer differently.

Both must hold the data of this repository's load generator and nothing else, best the same block files. Only the standard library is used.

    compare.py --left http://HOST:PORT --right http://HOST:PORT --start SECONDS --end SECONDS [--count 300] [--seed 1]

Searches ask for a few seconds and for more traces than there are, so that every match is compared: its id, root, start, duration, the counts of
its services, and of each set of spans the number that match, its own attributes, and the spans. Of what spans show only what both show is compared,
because Tempo does not show all of it for a filter with `||`. Metrics are compared value by value (relative difference of 1e-6). The exit code is
1 if there is any difference.

Left out, because the two are known to differ: `!(condition)`, `compare`, arrays (docs/compatibility.md says how). Arithmetic with aggregates,
comparisons of two aggregates and constants before them are refused by both.
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
# Characters shown of a difference.
SHOW = 300

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
    'span."http.route"': ["/healthz", "/api/cart"],
    '."http.request.method"': ["GET", "PUT"],
    "span:name": ["GET /api/cart", "GET /"],
    "trace:rootName": ["GET /api/cart", "POST /api/checkout"],
    "trace:rootService": ["cart", "frontend"],
    "span:statusMessage": ["", "x"],
    "instrumentation:version": ["", "1.0.0"],
}
NUMBERS = {
    "span.http.response.status_code": [200, 404, 500, 503],
    "span.server.port": [8080, 80],
    "span.thread.id": [1, 17, 63],
    "span.app.cart.value": [0.5, 17.25, 150.0],
    "span:childCount": [0, 1, 3],
    "span.missing": [1],
}
DURATIONS = ["duration", "traceDuration", "span:duration", "trace:duration"]
SPANS = ["1ms", "10ms", "45ms", "0.1s", "250ms", "1s"]
REGEXES = [".*cart.*", "GET .*", "user-0.*7", ".*/api/(cart|orders).*", "front.*|ad", "", ".+"]
GROUPS = ["resource.service.name", "span.http.route", "name", "status", "kind", "span.http.request.method", "span.app.cache.hit", "span.missing",
          "rootServiceName", "span.http.response.status_code"]
SHOWN = ["name", "status", "kind", "rootName", "span:statusMessage", "event:name", "event.exception.type", "resource.deployment.environment",
         'span."http.route"', "span.app.cache.hit"]
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
        if kind < 0.95:
            # A resource always has a service, and an intrinsic a value: neither can be nil.
            fields = [field for field in [*TEXTS, *NUMBERS] if field.startswith(("span.", "."))]
            left, right = self.pick(fields), "nil"
            if self.random.random() < 0.2:
                left, right = right, left
            return f'{left} {self.pick(["!=", "="])} {right}'
        if kind < 0.96:
            return self.pick(["span.app.cache.hit", "true", "-span.app.cart.value < -17", "1 < 2", "event:timeSinceStart > 1ms", "false || true"])
        if kind < 0.97:
            return self.pick(["span:status != error", "span:kind != server", "span:status = ok", "span:kind = consumer"])
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

    def scalar(self):
        """A comparison of what is computed over the spans of a trace."""
        kind = self.random.random()
        if kind < 0.25:
            return f'count() {self.pick([">", "=", "<", ">=", "!="])} {self.random.randrange(5)}'
        if kind < 0.5:
            return f'{self.pick(["avg", "min", "max", "sum"])}(duration) {self.pick([">", "<"])} {self.pick(SPANS)}'
        if kind < 0.9:
            return f'{self.pick(["avg", "min", "max", "sum"])}({self.pick(AMOUNTS[1:])}) {self.pick([">", "<=", "!="])} {self.random.randrange(300)}'
        return f'count() {self.pick(["<", ">=", "="])} {self.random.randrange(1, 4)} + 1'

    def search(self):
        if self.random.random() < 0.06:
            # Whole pipelines as operands; nothing can come after them.
            return f'({self.filter()} | {self.scalar()}) {self.pick(["&&", "||", ">", ">>", "~"])} ({self.filter()} | {self.scalar()})'
        query = self.spanset()
        hints = f' with ({self.pick(["most_recent=true", "most_recent=false", "unknown=1"])})' if self.random.random() < 0.1 else ""
        return self.stages(query) + hints

    def stages(self, query):
        kind = self.random.random()
        if kind < 0.3:
            query += f" | {self.scalar()}"
        elif kind < 0.38:
            query += f" | by({self.pick(GROUPS)}) | {self.scalar()}"
        elif kind < 0.42:
            query += f" | by({self.pick(GROUPS)}) | by({self.pick(GROUPS)})"
        elif kind < 0.46:
            query += f" | by({self.pick(GROUPS)}) | coalesce() | {self.scalar()}"
        elif kind < 0.58:
            query += f" | select({self.pick(GROUPS)}, {self.pick(AMOUNTS)}, {self.pick(SHOWN)})"
        elif kind < 0.62:
            query += f" | {self.filter()}"
        return query

    def metrics(self):
        """A metrics query: one, or two with arithmetic between them, with what may come after."""
        if self.random.random() < 0.12:
            other = f"({self.series()})" if self.random.random() < 0.7 else str(self.random.randrange(1, 100))
            query = f'({self.series()}) {self.pick(["+", "-", "*", "/"])} {other}'
        else:
            query = self.series()
        after = self.random.random()
        if after < 0.1:
            query += f' {self.pick([">", "<", ">=", "!="])} {self.pick(["0.5", "3", "10"])}'
        elif after < 0.2:
            query += f' | {self.pick(["topk", "bottomk"])}({self.random.randrange(1, 5)})'
        elif after < 0.23:
            query += f" > 1 < 50 | topk({self.random.randrange(1, 5)})"
        return query + (f' with ({self.pick(["exemplars=false", "exemplars=3", "unknown=true"])})' if self.random.random() < 0.1 else "")

    def series(self):
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


def texts(attributes):
    """Attributes as keys and texts."""
    return tuple(sorted({(one["key"], json.dumps(one.get("value"), sort_keys=True)) for one in attributes or []}))


def shown(body):
    """What spans show, by trace, span and key. A span that lacks what was asked for shows nil in Tempo, and nothing in Vivace."""
    values = {}
    for trace in body.get("traces") or []:
        for span in (span for one in trace.get("spanSets") or [] for span in one.get("spans") or []):
            for key, value in [*texts(span.get("attributes")), *([("name", span["name"])] if span.get("name") else [])]:
                if value != '{"stringValue": "nil"}':
                    values.setdefault((trace.get("traceID", "").lstrip("0"), span.get("spanID"), key), set()).add(value)
    return values


def found(body, end):
    """What a search found, by trace; without those that begin in the last second, which one side may count as inside."""
    traces = {}
    for trace in body.get("traces") or []:
        if int(trace.get("startTimeUnixNano") or 0) >= end * 1_000_000_000:
            continue
        sets = trace.get("spanSets") or ([trace["spanSet"]] if trace.get("spanSet") else [])
        matched = sorted(
            (one.get("matched", 0), texts(one.get("attributes")),
             tuple(sorted((span.get("spanID", ""), span["startTimeUnixNano"], span.get("durationNanos", "0")) for span in one.get("spans") or [])))
            for one in sets
        )
        services = tuple(sorted((name, tuple(sorted(counts.items()))) for name, counts in (trace.get("serviceStats") or {}).items()))
        root = (trace.get("rootServiceName", ""), trace.get("rootTraceName", ""))
        traces[trace.get("traceID", "").lstrip("0")] = (*root, trace.get("startTimeUnixNano"), trace.get("durationMs", 0), services, tuple(matched))
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
            if isinstance(a, tuple) and isinstance(b, tuple):
                # Only the parts that differ.
                a, b = [x for x, y in zip(a, b) if x != y], [y for x, y in zip(a, b) if x != y]
            differing.append(f"{key}: {str(a)[:SHOW]} | {str(b)[:SHOW]}")
    return differing


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--left", required=True)
    parser.add_argument("--right", required=True)
    parser.add_argument("--start", type=int, required=True, help="where the data begins, in seconds")
    parser.add_argument("--end", type=int, required=True, help="where it ends")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--refused", action="store_true", help="show what both refuse, too")
    options = parser.parse_args()
    queries, bad, equal, refused, empty, cut = Queries(options.seed), 0, 0, 0, 0, 0
    for number in range(options.count):
        if queries.random.random() < 0.6:
            path, width, text = "/api/search", queries.random.randrange(2, 9), queries.search()
            more, read = {"limit": LIMIT, "spss": 100}, found
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
            if options.refused:
                print(f"#{number} {text}\n  refused: {str(left)[:200]} | {str(right)[:200]}")
            continue
        number_shown = max(len(left.get("traces") or []), len(right.get("traces") or []))
        values = (shown(left), shown(right))
        left, right = read(left, start + width), read(right, start + width)
        if number_shown >= LIMIT:
            # Which of them are shown is the server's choice.
            cut += 1
            continue
        differing = differences(left, right)
        both = sorted(set(values[0]) & set(values[1]))
        differing += [f"{key}: {values[0][key]} | {values[1][key]}" for key in both if values[0][key] != values[1][key]]
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
