"""Transformers as torchvision and timm define them: libra and AttnLRP against torch, where these are installed."""

import numpy as np
import pytest

from fgonnx import Explainer
from tests import skips
from tests.support import pictures

torch = skips.without("torch")

from tests.witness import attnlrp, libra, torchnets  # noqa: E402


def torchvision():
    try:
        return skips.without("torchvision").models
    except RuntimeError as error:  # one that was built for another torch
        skips.now(skips.PACKAGE, f"torchvision does not import: {error}")


def timm():
    try:
        return skips.without("timm").models
    except RuntimeError as error:
        skips.now(skips.PACKAGE, f"timm does not import: {error}")


_SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 5}
_PATCHES = {"img_size": (32, 48), "patch_size": 8, **_SMALL}
_LEVELS = {"embed_dim": 12, "num_heads": (2, 2), "num_classes": 5, "window_size": 4, "depths": (2, 2)}

FAMILIES = {
    "ViT (torchvision)": lambda: torchvision().VisionTransformer(32, 8, 2, 2, 24, 48, num_classes=5),
    "Swin (torchvision)": lambda: torchvision().SwinTransformer([4, 4], 12, [2, 2], [2, 2], [4, 4], num_classes=5),
    "ConvNeXt (torchvision)": lambda: torchvision().ConvNeXt(
        [torchvision().convnext.CNBlockConfig(12, 20, 2), torchvision().convnext.CNBlockConfig(20, None, 1)],
        num_classes=5,
    ),
    "ViT (timm)": lambda: timm().VisionTransformer(**_PATCHES),
    "ViT, averaged (timm)": lambda: timm().VisionTransformer(**_PATCHES, class_token=False, global_pool="avg"),
    "ViT with registers (timm)": lambda: timm().VisionTransformer(**_PATCHES, reg_tokens=4, init_values=0.5),
    "DeiT (timm)": lambda: timm().deit.VisionTransformerDistilled(**_PATCHES),
    "Swin (timm)": lambda: timm().SwinTransformer(img_size=32, patch_size=4, **_LEVELS),
    "ConvNeXt (timm)": lambda: timm().ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 12, 16, 20), num_classes=5),
}


def _moved(net):
    """Return a network whose parameters that start at 0, 1 or nearly so have moved."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator)
    return net.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_both_backward_passes_are_those_of_torch(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _moved(FAMILIES[name]())
    wide = "timm" in name and ("ViT" in name or "DeiT" in name)
    x = pictures(2, (3, 32, 48 if wide else 32))
    exported = torchnets.export(net, x.shape, folded=True, opset=18)
    given = torch.from_numpy(x)
    expected = {
        "libra": x * libra.input_gradient(net, given, 1).numpy(),
        "attnlrp": attnlrp.attribution(net, given, 1).numpy(),
    }
    for backward, truth in expected.items():
        found = Explainer(exported, backward=backward, input_gradient=True, threads=1)(x, 1)
        np.testing.assert_allclose(found.input_gradient * x, truth, rtol=0, atol=1e-5 * np.abs(truth).max())
        assert found.rounding_residual().max() < 1e-6
