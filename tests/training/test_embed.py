import json

import numpy as np
import pytest

from vtr_export.model.checkpoint import load_checkpoint
from vtr_runtime.errors import MediaError
from vtr_training.data.clip import Clip
from vtr_training.data.prepare import PrepareOptions, prepare
from vtr_training.data.source import read_clips
from vtr_training.embed import embed_with_runtime, embed_with_torch, spans


def test_spans_cover_everything_once():
    assert [list(range(10))[span] for span in spans(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(spans(0, 4)) == []


def test_a_bundle_and_its_checkpoint_embed_alike(small_checkpoint, small_model, demo, tmp_path):
    absent = Clip(tmp_path / "absent.mp4", ("nobody sees this",), "test")
    part = read_clips(demo, "test")[0]
    clips = [*read_clips(demo, "test")[:5], absent, Clip(part.video, ("the end", "the last second"), "test", start=1.0)]
    ours = embed_with_torch(load_checkpoint(small_checkpoint).model, clips)
    theirs = embed_with_runtime(small_model, clips)
    assert ours.clips == theirs.clips == (*clips[:5], clips[6])
    assert ours.owners.tolist() == theirs.owners.tolist() == [0, 1, 2, 3, 4, 5, 5]
    np.testing.assert_allclose(ours.video, theirs.video, atol=1e-5)
    np.testing.assert_allclose(ours.text, theirs.text, atol=1e-5)
    for found in (ours, theirs):
        assert len(found.unreadable) == 1
        assert "absent.mp4" in found.unreadable[0]


@pytest.mark.parametrize("embed", [embed_with_runtime, embed_with_torch])
def test_nothing_readable(embed, small_checkpoint, small_model, tmp_path):
    model = small_model if embed is embed_with_runtime else load_checkpoint(small_checkpoint).model
    with pytest.raises(MediaError, match="none of the 1 clips can be read"):
        embed(model, [Clip(tmp_path / "absent.mp4", ("x",), "test")])


def test_a_bundle_embeds_prepared_frames_as_it_does_videos(small_model, demo, tmp_path):
    spec = small_model.manifest.frames
    rows = [{"video": str(clip.video), "captions": ["x"], "split": "test"} for clip in read_clips(demo, "test")[:3]]
    rows.insert(1, {"video": "absent.mp4", "captions": ["nobody sees this"], "split": "test"})
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    prepare(str(tmp_path), tmp_path / "shards", PrepareOptions(spec))
    wanted = embed_with_runtime(small_model, read_clips(tmp_path, "test"))
    found = embed_with_runtime(small_model, read_clips(f"prepared:{tmp_path / 'shards'}", "test"))
    assert len(found.video) == 3
    np.testing.assert_allclose(found.video, wanted.video, atol=1e-6)
    assert found.unreadable == wanted.unreadable
