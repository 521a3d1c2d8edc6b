"""The JSON record of a finished run: written last, with its own digest, and checked when it is read."""

import hashlib
import json
import re

from .errors import CheckpointError

__all__ = ["FORMAT", "decode_record", "encode_record"]

FORMAT = 2  # 1 had no digest of its own
REQUIRED = {"run_id": str, "config": dict, "metrics": dict, "history": list, "seconds": (int, float), "machine": dict}
REQUIRED |= {"versions": dict, "code": dict, "checkpoint_sha256": str, "logits_sha256": str, "finished": str}
DIGESTS = ("checkpoint_sha256", "logits_sha256")


def encode_record(record):
    """Return the bytes of a record, with its format and digest.

    Parameters
    ----------
    record : dict
        Plain values.

    Returns
    -------
    bytes
    """
    record = {"format": FORMAT, **record}
    return json.dumps({"sha256": _digest(record), **record}, indent=1).encode()


def decode_record(content, path, run_id):
    """Return the record that `encode_record` wrote, or one of format 1.

    Parameters
    ----------
    content : bytes
    path : str or Path
        Where it was found, for the message.
    run_id : str
        Whose record it should be.

    Raises
    ------
    CheckpointError
        If a byte of it was changed, or it is another run's, or of a format that this version does not know.
    """
    try:
        record = json.loads(content)
        digest, form = record.pop("sha256", None), record.get("format", 1)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise _damaged(path, f"no JSON object ({type(error).__name__}: {error})") from error
    if digest is not None and digest != _digest(record):
        raise _damaged(path, "a record that was changed after it was written")
    if type(form) is not int or form not in (1, FORMAT):
        wanted = f"format 1 to {FORMAT}, which this version of wamlib knows"
        fix = "Read it with the version that wrote it, which the record names, or delete the folder of the run and "
        fix += "run the command again: it trains this run anew."
        raise CheckpointError("cannot read a run", str(path), f"a record of format {form!r}", wanted, fix)
    if (form == FORMAT) != (digest is not None):
        raise _damaged(path, f"a record of format {form} {'without' if digest is None else 'with'} a digest")
    wrong = [name for name, kind in REQUIRED.items() if not isinstance(record.get(name), kind)]
    # Digests become part of names in a bucket.
    wrong += [name for name in record if name in DIGESTS and not re.fullmatch("[0-9a-f]{64}", str(record[name]))]
    if wrong:
        raise _damaged(path, f"a record without a valid {wrong[0]!r}")
    if record["run_id"] != run_id:
        raise _damaged(path, f"the record of {record['run_id']!r}")
    return record


def _digest(record):
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _damaged(path, got):
    fix = f"Delete the folder {str(path).rpartition('/')[0]} and run the command again: it trains this run anew."
    return CheckpointError("cannot read a run", str(path), got, "the JSON that training wrote", fix)
