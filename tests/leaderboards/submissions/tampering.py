"""What the tests of submissions share: real records out of the accepted submissions, and ways to change them."""

import copy
import json
import re

from harness.identity import digest_bytes, digest_json
from leaderboards.submissions import archive, submission
from leaderboards.submissions.verification import ACCEPTED

UPSTREAM = "wavlm_mini"


def members(upstream=UPSTREAM):
    """Of an accepted submission the card and the records of suite ``embedded``, whose test set is known."""
    return _of(archive.unpack(ACCEPTED / f"{upstream}.zip"), "/embedded/")


def few_members():
    """Of an accepted submission one record, so that it is verified fast."""
    return _of(members(), "/ks-")


def _of(files, part):
    files = {name: data for name, data in files.items() if "/" not in name or part in name}
    stated = json.loads(files[submission.MANIFEST])
    stated["files"] = {name: entry for name, entry in stated["files"].items() if name in files}
    return {**files, submission.MANIFEST: json.dumps(stated).encode()}


def record_text(task, upstream=UPSTREAM):
    """Bytes of one accepted record as its file has them."""
    return next(data for name, data in members(upstream).items() if f"/{task}-" in name)


def plain(task, upstream=UPSTREAM):
    return json.loads(record_text(task, upstream))


def resealed(content):
    """Bytes of a record whose seal fits whatever it now says: what someone writes who knows the code."""
    content = {name: value for name, value in content.items() if name != "digest"}
    return json.dumps({**content, "digest": digest_json(content)}).encode()


def leaves(value, path=()):
    """(path, leaf) of every number, text, truth value and null."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves(inner, (*path, place))
    else:
        yield path, value


def changed(content, path, value):
    content = copy.deepcopy(content)
    holder = content
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    return content


def flipped(number):
    """Another number, by its first digit that is not 0 (0 becomes 1)."""
    text = repr(number)
    if not re.search("[1-9]", text.split("e")[0]):
        return number + 1
    return type(number)(re.sub("[1-9]", lambda found: str(int(found[0]) % 9 + 1), text, count=1))


def repacked(files, manifest=None):
    """A submission of changed members whose manifest lists them as they are."""
    files = dict(files)
    stated = json.loads(files.pop(submission.MANIFEST))
    stated["files"] = {name: {"sha256": digest_bytes(data), "bytes": len(data)} for name, data in files.items()}
    stated |= manifest or {}
    return archive.pack({**files, submission.MANIFEST: json.dumps(stated).encode()})
