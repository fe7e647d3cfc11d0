"""The cards of public models: sizes that their adapters build; a missing file says what to fetch and where it goes."""

import pytest
import torch
import torchaudio
from transformers import AutoConfig

from harness.cards import check_weights
from harness.interface import SlimbenchError
from harness.registry import cards, resolve
from upstreams.adapters import huggingface

ADAPTERS = {
    "upstreams.adapters.huggingface:HuggingFace",
    "upstreams.adapters.whisper:Whisper",
    "upstreams.adapters.wav2vec2_bert:Wav2Vec2Bert",
    "upstreams.adapters.torchaudio_models:Torchaudio",
}
PUBLIC = {name: card for name, card in cards().items() if card.adapter in ADAPTERS and card.packaged}
MILLIONS = {"hubert_base": 94.37, "wavlm_base_plus": 94.38, "wav2vec2_base": 94.37, "wav2vec2_large_lv60": 315.4}
"""Parameters of the encoders, as known from the papers (95 M, 317 M with quantiser) and Transformers' documentation."""


@pytest.mark.parametrize("name", PUBLIC)
def test_a_missing_file_says_what_to_fetch_and_where_to_put_it(name, monkeypatch):
    monkeypatch.delenv("SLIMBENCH_WEIGHTS", raising=False)
    card = cards()[name]
    with pytest.raises(
        SlimbenchError, match=r"put them at \$\{SLIMBENCH_WEIGHTS\}/.* and set that variable .*source: "
    ):
        check_weights(card)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_card_is_short_and_its_adapter_knows_the_family(name):
    card = PUBLIC[name]
    assert len(card.file.read_text().splitlines()) <= 20
    assert callable(resolve(card.adapter))
    assert card.width == {24: 1024, 12: 768, 6: 512, 4: 384}[card.depth]
    if "bundle" in card.options:
        bundle = getattr(torchaudio.pipelines, card.options["bundle"])
        assert (bundle._params["encoder_num_layers"], bundle._params["encoder_embed_dim"]) == (card.depth, card.width)
        assert card.weights.name == bundle._path
    else:
        assert card.source == f"Hugging Face model {card.source.split()[-1]}"
        assert card.weights.name == card.source.rpartition("/")[2]
        assert AutoConfig.for_model(card.family).model_type in {**huggingface.MODELS, **huggingface.ELSEWHERE}


@pytest.mark.parametrize(("name", "millions"), MILLIONS.items())
def test_the_size_of_the_encoder(name, millions):
    card = PUBLIC[name]
    large = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True} if card.depth == 24 else {}
    sizes = {"hidden_size": card.width, "num_hidden_layers": card.depth, "intermediate_size": 4 * card.width}
    config = AutoConfig.for_model(card.family, num_attention_heads=card.width // 64, **sizes, **large)
    with torch.device("meta"):
        model = huggingface.MODELS[card.family](config)
    found = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(huggingface.HEADS))
    assert found / 1e6 == pytest.approx(millions, abs=0.05)
