"""Plain vision transformers with the names that timm, DeiT, DINOv2 and Hugging Face give their tensors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, DEPTH, PATCH, SIZE, CLASSES = 128, 6, 8, 48, 7  # two heads of 64, a grid of 6
ROWS = (SIZE // PATCH) ** 2 + 1


def attend(query, key, value, heads):
    def split(x):
        return x.unflatten(2, (heads, -1)).transpose(1, 2)

    query, key, value = split(query), split(key), split(value)
    weights = (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


class Scale(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name
        self.register_parameter(name, nn.Parameter(torch.ones(WIDTH)))

    def forward(self, x):
        return x * getattr(self, self.name)


class Holder(nn.Module):
    """Submodules under the names given: `Holder(dense=nn.Linear(2, 2))`."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            if isinstance(child, nn.Parameter):
                self.register_parameter(name, child)
            else:
                self.add_module(name, child)


class TimmBlock(nn.Module):
    def __init__(self, scale, heads, qkv_bias):
        super().__init__()
        self.heads, self.scale = heads, scale
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(2))
        self.attn = Holder(qkv=nn.Linear(WIDTH, 3 * WIDTH, bias=qkv_bias), proj=nn.Linear(WIDTH, WIDTH))
        self.mlp = Holder(fc1=nn.Linear(WIDTH, 4 * WIDTH), fc2=nn.Linear(4 * WIDTH, WIDTH))
        if scale == "ls":
            self.ls1, self.ls2 = Scale("gamma"), Scale("gamma")
        elif scale == "gamma":
            self.gamma_1, self.gamma_2 = (nn.Parameter(torch.ones(WIDTH)) for _ in range(2))

    def forward(self, x):
        first = {"ls": lambda y: self.ls1(y), "gamma": lambda y: y * self.gamma_1, "": lambda y: y}[self.scale]
        second = {"ls": lambda y: self.ls2(y), "gamma": lambda y: y * self.gamma_2, "": lambda y: y}[self.scale]
        x = x + first(self.attn.proj(attend(*self.attn.qkv(self.norm1(x)).chunk(3, dim=-1), self.heads)))
        return x + second(self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x)))))


class TimmViT(nn.Module):
    """timm's and facebookresearch's: `scale` "ls" as in DINOv2, "gamma" as in DeiT III; `pool` "token" or "avg"."""

    def __init__(self, scale="", pool="token", classes=CLASSES, heads=2, qkv_bias=True, class_row=True, masked=False):
        super().__init__()
        self.pool = pool
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, ROWS if class_row else ROWS - 1, WIDTH))
        if masked:
            self.mask_token = nn.Parameter(torch.zeros(1, WIDTH))
        self.patch_embed = Holder(proj=nn.Conv2d(3, WIDTH, PATCH, stride=PATCH))
        self.blocks = nn.ModuleList(TimmBlock(scale, heads, qkv_bias) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6) if pool == "token" else nn.Identity()
        self.fc_norm = nn.LayerNorm(WIDTH, eps=1e-6) if pool == "avg" else nn.Identity()
        self.head = nn.Linear(WIDTH, classes) if classes else nn.Identity()

    def forward(self, images):
        x = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        token = self.cls_token.expand(len(x), -1, -1)
        if self.pos_embed.shape[1] == ROWS:
            x = torch.cat([token, x], dim=1) + self.pos_embed
        else:
            x = torch.cat([token, x + self.pos_embed], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return self.head(self.fc_norm(x[:, 0] if self.pool == "token" else x[:, 1:].mean(dim=1)))


def hugging_face_attention(modern):
    """Released names, or those of transformers 5."""
    if modern:
        return Holder(**{f"{letter}_proj": nn.Linear(WIDTH, WIDTH) for letter in "qkvo"})
    inner = Holder(**{name: nn.Linear(WIDTH, WIDTH) for name in ("query", "key", "value")})
    return Holder(attention=inner, output=Holder(dense=nn.Linear(WIDTH, WIDTH)))


def hugging_face_attend(attention, modern, x):
    if modern:
        mixed = attend(attention.q_proj(x), attention.k_proj(x), attention.v_proj(x), 2)
        return attention.o_proj(mixed)
    inner = attention.attention
    return attention.output.dense(attend(inner.query(x), inner.key(x), inner.value(x), 2))


class ViTLayer(nn.Module):
    def __init__(self, modern):
        super().__init__()
        self.modern = modern
        self.attention = hugging_face_attention(modern)
        self.layernorm_before, self.layernorm_after = (nn.LayerNorm(WIDTH, eps=1e-12) for _ in range(2))
        up, down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        if modern:
            self.mlp = Holder(fc1=up, fc2=down)
        else:
            self.intermediate, self.output = Holder(dense=up), Holder(dense=down)

    def forward(self, x):
        x = x + hugging_face_attend(self.attention, self.modern, self.layernorm_before(x))
        up, down = (self.mlp.fc1, self.mlp.fc2) if self.modern else (self.intermediate.dense, self.output.dense)
        return x + down(F.gelu(up(self.layernorm_after(x))))


class Dinov2Layer(nn.Module):
    def __init__(self, modern):
        super().__init__()
        self.modern = modern
        self.attention = hugging_face_attention(modern)
        self.norm1, self.norm2 = (nn.LayerNorm(WIDTH, eps=1e-6) for _ in range(2))
        self.layer_scale1, self.layer_scale2 = Scale("lambda1"), Scale("lambda1")
        self.mlp = Holder(fc1=nn.Linear(WIDTH, 4 * WIDTH), fc2=nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        x = x + self.layer_scale1(hugging_face_attend(self.attention, self.modern, self.norm1(x)))
        return x + self.layer_scale2(self.mlp.fc2(F.gelu(self.mlp.fc1(self.norm2(x)))))


class HuggingFace(nn.Module):
    """`kind` "vit" or "dinov2"; without `classes` a bare backbone, whose names have no prefix."""

    def __init__(self, kind, classes=CLASSES, modern=False):
        super().__init__()
        proj = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        embeddings = Holder(
            cls_token=nn.Parameter(torch.zeros(1, 1, WIDTH)),
            position_embeddings=nn.Parameter(torch.zeros(1, ROWS, WIDTH)),
            patch_embeddings=Holder(projection=proj),
        )
        layer = ViTLayer if kind == "vit" else Dinov2Layer
        layers = nn.ModuleList(layer(modern) for _ in range(DEPTH))
        inside = {"embeddings": embeddings, "layernorm": nn.LayerNorm(WIDTH, eps=1e-12 if kind == "vit" else 1e-6)}
        if kind == "vit" and modern:
            inside["layers"] = layers
        else:
            inside["encoder"] = Holder(layer=layers)
        if kind == "dinov2":
            embeddings.register_parameter("mask_token", nn.Parameter(torch.zeros(1, WIDTH)))
        elif not classes:
            inside["pooler"] = Holder(dense=nn.Linear(WIDTH, WIDTH))
        for name, module in ({kind: Holder(**inside)} if classes else inside).items():
            self.add_module(name, module)
        if classes:
            self.classifier = nn.Linear(WIDTH, classes)
        self._parts, self._layers = inside, [*layers]  # in a list, so that they have one name

    def forward(self, images):
        embeddings = self._parts["embeddings"]
        x = embeddings.patch_embeddings.projection(images).flatten(2).transpose(1, 2)
        x = torch.cat([embeddings.cls_token.expand(len(x), -1, -1), x], dim=1) + embeddings.position_embeddings
        for layer in self._layers:
            x = layer(x)
        token = self._parts["layernorm"](x)[:, 0]
        return self.classifier(token) if hasattr(self, "classifier") else token


def filled(module):
    """`module` with random weights whose attention is far from uniform."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1 and name.endswith("weight"):
                parameter.copy_(noise * 1.5 / parameter[0].numel() ** 0.5)
            elif "embed" in name or "token" in name:
                parameter.copy_(noise * 0.5)
            else:
                parameter.copy_(parameter + noise * 0.1)
    return module.eval().requires_grad_(False)


SOURCES = {
    "timm ViT": lambda: TimmViT(),
    "timm ViT, mean-pooled": lambda: TimmViT(pool="avg"),
    "timm ViT with layer scales, no head": lambda: TimmViT("ls", classes=0),
    "timm ViT without a qkv bias": lambda: TimmViT(qkv_bias=False),
    "DeiT III": lambda: TimmViT("gamma", class_row=False),
    "DINOv2": lambda: TimmViT("ls", classes=0, masked=True),
    "Hugging Face ViT": lambda: HuggingFace("vit"),
    "Hugging Face ViT, transformers 5": lambda: HuggingFace("vit", modern=True),
    "Hugging Face ViT, bare": lambda: HuggingFace("vit", classes=0),
    "Hugging Face DINOv2": lambda: HuggingFace("dinov2"),
    "Hugging Face DINOv2, bare": lambda: HuggingFace("dinov2", classes=0),
    "Hugging Face DINOv2, transformers 5": lambda: HuggingFace("dinov2", classes=0, modern=True),
}
