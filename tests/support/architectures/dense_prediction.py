"""Networks that return images or feature maps: U-Net, detectors, super-resolution, generators."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.architectures.architecture import Made, seeded
from tests.support.architectures.blocks import conv_bn, images


class _UNet(nn.Module):
    """Two levels down and up; feature maps of the way down are concatenated on the way up."""

    def __init__(self, up_sampled: bool) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = self._double(3, 6), self._double(6, 10), self._double(10, 14)
        self.up2, self.up1 = self._up(14, 10, up_sampled), self._up(10, 6, up_sampled)
        self.join2, self.join1 = self._double(20, 10), self._double(12, 6)
        self.output = nn.Conv2d(6, 2, 1)

    @staticmethod
    def _double(before: int, after: int) -> nn.Module:
        return nn.Sequential(conv_bn(before, after), conv_bn(after, after))

    @staticmethod
    def _up(before: int, after: int, up_sampled: bool) -> nn.Module:
        if not up_sampled:
            return nn.ConvTranspose2d(before, after, 2, 2)
        up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        return nn.Sequential(up, nn.Conv2d(before, after, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        one = self.down1(x)
        two = self.down2(functional.max_pool2d(one, 2))
        x = self.bottom(functional.max_pool2d(two, 2))
        x = self.join2(torch.cat([two, self.up2(x)], 1))
        return self.output(self.join1(torch.cat([one, self.up1(x)], 1)))  # type: ignore[no-any-return]


@seeded
def unet() -> Made:
    """With transposed convolutions (Ronneberger et al. 2015)."""
    return _UNet(up_sampled=False), images()


@seeded
def unet_up_sampled() -> Made:
    """With bilinear up-sampling."""
    return _UNet(up_sampled=True), images()


class _C2f(nn.Module):
    """Splits its channels; each block reads the last part, and all parts are concatenated (YOLOv8)."""

    def __init__(self, before: int, after: int, blocks: int, added: bool) -> None:
        super().__init__()
        self.middle, self.added = after // 2, added
        self.cv1 = conv_bn(before, after, 1, act=nn.SiLU)
        self.cv2 = conv_bn((2 + blocks) * self.middle, after, 1, act=nn.SiLU)
        self.m = nn.ModuleList(
            nn.Sequential(
                conv_bn(self.middle, self.middle, act=nn.SiLU), conv_bn(self.middle, self.middle, act=nn.SiLU)
            )
            for _ in range(blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = [*(self.cv1(x).chunk(2, 1) if self.added else self.cv1(x).split((self.middle, self.middle), 1))]
        for block in self.m:
            y.append(y[-1] + block(y[-1]) if self.added else block(y[-1]))
        return self.cv2(torch.cat(y, 1))  # type: ignore[no-any-return]


class _SPPF(nn.Module):
    """The same max pooling, one to three times, concatenated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = conv_bn(channels, channels // 2, 1, act=nn.SiLU)
        self.cv2 = conv_bn(2 * channels, channels, 1, act=nn.SiLU)
        self.m = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        y.extend(self.m(y[-1]) for _ in range(3))
        return self.cv2(torch.cat(y, 1))  # type: ignore[no-any-return]


class _Yolo(nn.Module):
    """A backbone of two levels, a neck that goes up and down again, and a head for each level that concatenates
    boxes and classes and flattens the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, stride=2, act=nn.SiLU)
        self.level1 = _C2f(8, 8, 1, added=True)
        self.down = conv_bn(8, 12, stride=2, act=nn.SiLU)
        self.level2 = nn.Sequential(_C2f(12, 12, 2, added=True), _SPPF(12))
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.neck1 = _C2f(20, 8, 1, added=False)
        self.neck_down = conv_bn(8, 8, stride=2, act=nn.SiLU)
        self.neck2 = _C2f(20, 12, 1, added=False)
        self.boxes = nn.ModuleList(self._head(channels, 4) for channels in (8, 12))
        self.classes = nn.ModuleList(self._head(channels, 3) for channels in (8, 12))

    @staticmethod
    def _head(channels: int, outputs: int) -> nn.Module:
        return nn.Sequential(conv_bn(channels, 6, act=nn.SiLU), nn.Conv2d(6, outputs, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        one = self.level1(self.stem(x))
        two = self.level2(self.down(one))
        first = self.neck1(torch.cat([self.up(two), one], 1))
        second = self.neck2(torch.cat([self.neck_down(first), two], 1))
        maps = [
            torch.cat((boxes(level), classes(level)), 1)
            for level, boxes, classes in zip((first, second), self.boxes, self.classes, strict=True)
        ]
        flat = torch.cat([m.view(m.shape[0], 7, -1) for m in maps], 2)
        boxes, classes = flat.split((4, 3), 1)
        return torch.cat((boxes * 8, classes.sigmoid()), 1), maps


@seeded
def yolo() -> Made:
    """Splits, concatenations, up-sampling and several heads, as of YOLOv8."""
    return _Yolo(), images(side=16)


class _FeaturePyramid(nn.Module):
    """Lateral 1×1 convolutions, sums with the up-sampled level above, and one head that all levels share."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (8, 12, 16)
        self.stages = nn.ModuleList([conv_bn(3, 8), conv_bn(8, 12, stride=2), conv_bn(12, 16, stride=2)])
        self.lateral = nn.ModuleList(nn.Conv2d(size, 8, 1) for size in sizes)
        self.smooth = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in sizes)
        tower = [nn.Conv2d(8, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.ReLU()]
        self.shared = nn.Sequential(*tower, nn.Conv2d(8, 6, 3, padding=1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            maps.append(lateral(x))
        for level in (1, 0):
            up = functional.interpolate(maps[level + 1], size=maps[level].shape[-2:], mode="nearest")
            maps[level] = maps[level] + up
        return {f"p{n}": self.shared(smooth(m)) for n, (smooth, m) in enumerate(zip(self.smooth, maps, strict=True))}


@seeded
def feature_pyramid() -> Made:
    """Several outputs by name, from a shared head (Lin et al. 2017)."""
    return _FeaturePyramid(), images()


@seeded
def espcn() -> Made:
    """Super-resolution by pixel shuffle (Shi et al. 2016); one of the two is inside the network."""
    up = [nn.Conv2d(8, 24, 3, padding=1), nn.PixelShuffle(2), nn.PReLU(6), nn.Conv2d(6, 12, 3, padding=1)]
    return nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.Tanh(), *up, nn.PixelShuffle(2)), images()


@seeded
def generator() -> Made:
    """From noise to images: transposed convolutions, batch norm, PReLU (Radford et al. 2016)."""
    layers = [
        nn.Linear(6, 10 * 2 * 2), nn.Unflatten(1, (10, 2, 2)), nn.BatchNorm2d(10), nn.PReLU(),
        nn.ConvTranspose2d(10, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8),
        nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8), nn.BatchNorm2d(8), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(8, 3, 3, 1, 1), nn.Tanh(),
    ]  # fmt: skip
    return nn.Sequential(*layers), torch.randn(2, 6)


@seeded
def style_transfer() -> Made:
    """Instance norm, as its own layer and as group norm of one channel, reflected edges (Johnson et al. 2016)."""
    down = [nn.ReflectionPad2d(1), nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU()]
    middle = [nn.Conv2d(8, 12, 3, 2, 1, padding_mode="reflect"), nn.InstanceNorm2d(12), nn.ReLU()]
    up = [nn.Upsample(scale_factor=2), nn.Conv2d(12, 6, 3, padding=1), nn.GroupNorm(6, 6), nn.ELU()]
    return nn.Sequential(*down, *middle, *up, nn.Conv2d(6, 3, 1)), images()
