"""TorchScript and torch.export files against the module that they were made of, and files that are not run."""

from dataclasses import replace

import called_models
import pytest
import torch
from tiny_models import adapter_card, noise, save_exported

from harness.cards import Card
from harness.identity import digest_file
from harness.interface import SlimbenchError
from upstreams.adapters.exported import Exported

FILES = ["tiny.pt", "tiny.pt2"]


def exported_card(folder, name, **options) -> Card:
    digest = digest_file(folder / name)
    card = adapter_card(folder, "tiny", "upstreams.adapters.exported:Exported", weights=name, options=options)
    return replace(card, sha256=digest)


@pytest.mark.parametrize("name", FILES)
def test_states_are_those_of_the_module(tmp_path, name):
    model = save_exported(tmp_path / name)
    upstream = Exported(exported_card(tmp_path, name))
    least = 400 if name == "tiny.pt" else 720  # torch.export specialises on more than one frame
    assert (upstream.num_states, upstream.width, upstream.frame_ms, upstream.min_samples) == (2, 6, 20.0, least)
    waves, lengths = noise(16_000, 8_000, least)
    got = upstream.encode(waves, lengths)
    for row, length in enumerate(lengths.tolist()):
        with torch.no_grad():
            expected = model(waves[row : row + 1, :length], lengths[row : row + 1])
        for mine, theirs in zip(got.states, expected, strict=True):
            torch.testing.assert_close(mine[row, : theirs.shape[1]], theirs[0], rtol=1e-5, atol=1e-5)


def test_a_padded_batch_of_a_script(tmp_path):
    model = called_models.Counting().eval()
    torch.jit.save(torch.jit.script(model), tmp_path / "tiny.pt")
    upstream = Exported(exported_card(tmp_path, "tiny.pt", padded=True))
    waves, lengths = noise(16_000, 8_000)
    with torch.no_grad():
        states, frames = model(waves, lengths)
    got = upstream.encode(waves, lengths)
    assert torch.equal(got.states[1], states[1])
    assert torch.equal(got.lengths, frames)


@pytest.mark.parametrize(("name", "kind"), [("tiny.pt", "a TorchScript program"), ("tiny.pt2", "can run any code")])
def test_an_unpinned_file_is_not_run(tmp_path, monkeypatch, name, kind):
    save_exported(tmp_path / name)
    for module in (torch.jit, torch.export):
        monkeypatch.setattr(module, "load", None)
    with pytest.raises(SlimbenchError, match=rf"{name} is .*{kind}.*: if you trust it, pin it by its SHA-256"):
        Exported(replace(exported_card(tmp_path, name), sha256=None))
    with pytest.raises(SlimbenchError, match=rf"{name} has SHA-256 .* but its card .* says 0000.*; it is not run"):
        Exported(replace(exported_card(tmp_path, name), sha256="0" * 64))


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(tmp_path, name):
    save_exported(tmp_path / name)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:500])
    with pytest.raises(SlimbenchError, match=rf"{name} cannot be read as a torch|{name} cannot be read as a Torch"):
        Exported(exported_card(tmp_path, name))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(tmp_path, name):
    card = adapter_card(tmp_path, "tiny", "upstreams.adapters.exported:Exported", weights=name)
    with pytest.raises(SlimbenchError, match=rf"Cannot read .*{name}: No such file"):
        Exported(replace(card, sha256="0" * 64))


def test_what_the_warning_says_of_torch_export_is_true(tmp_path):
    """A planted pickle in a .pt2 runs in torch.export.load: the reason why the file must be pinned."""
    import zipfile

    save_exported(tmp_path / "good.pt2")
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return (trap.write_text, ("x",))

    torch.save(Trap(), tmp_path / "planted.bin")
    with zipfile.ZipFile(tmp_path / "good.pt2") as good, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
        for item in good.namelist():
            data = good.read(item)
            if item.endswith("weights_config.json"):
                data = data.replace(b'"use_pickle": false', b'"use_pickle": true')
            if "/weights/weight" in item:
                data = (tmp_path / "planted.bin").read_bytes()
            bad.writestr(zipfile.ZipInfo(item), data)
    with pytest.raises(Exception):  # noqa: B017, PT011
        torch.export.load(tmp_path / "bad.pt2")
    assert trap.exists()
    trap.unlink()
    card = replace(exported_card(tmp_path, "bad.pt2"), sha256=digest_file(tmp_path / "good.pt2"))
    with pytest.raises(SlimbenchError, match="it is not run"):
        Exported(card)
    assert not trap.exists()
