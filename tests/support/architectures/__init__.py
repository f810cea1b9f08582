"""Tiny networks of many architectures, each with a batch of two examples.

Weights and examples are always the same; batch norm, biases and everything else that initialisation leaves alike for
all units is drawn, so that a mistake in one unit shows. All are in evaluation mode, in float32.
"""

from __future__ import annotations

from tests.support.architectures import (
    attention,
    dense_prediction,
    hugging_face,
    mobile,
    perceptrons,
    reported,
    residual,
    zoo,
)
from tests.support.architectures.architecture import Factory

ARCHITECTURES: dict[str, Factory] = {
    factory.__name__: factory
    for factory in [
        perceptrons.mlp,
        perceptrons.actor_critic,
        perceptrons.classifier_first,
        perceptrons.tied_autoencoder,
        perceptrons.siamese,
        perceptrons.shared_block,
        perceptrons.two_towers,
        perceptrons.highway,
        perceptrons.gated_mlp,
        perceptrons.wavenet,
        perceptrons.volumes,
        mobile.lenet,
        mobile.vgg_bn,
        mobile.mobilenet_v2,
        mobile.mobilenet_v3,
        mobile.efficientnet,
        mobile.shufflenet_v1,
        mobile.shufflenet_v2,
        mobile.googlenet,
        residual.resnet_20_like,
        residual.resnet_bottleneck,
        residual.resnext,
        residual.se_resnet,
        residual.group_norm_resnet,
        residual.preactivation_resnet,
        residual.wide_resnet,
        residual.densenet,
        dense_prediction.unet,
        dense_prediction.unet_up_sampled,
        dense_prediction.yolo,
        dense_prediction.feature_pyramid,
        dense_prediction.espcn,
        dense_prediction.generator,
        dense_prediction.style_transfer,
        attention.encoder_post_norm,
        attention.encoder_pre_norm,
        attention.multihead_attention,
        attention.attention_weights,
        attention.self_attention,
        attention.einsum_attention,
        attention.llama,
        attention.mlp_mixer,
        attention.swin,
        attention.convnext,
        attention.convnext_torchvision,
        reported.concatenated_with_itself,
        reported.wide_and_deep,
        reported.split_by_layers,
        reported.query_key_norm,
        reported.features_as_images,
        reported.flattened_sequence,
        reported.stacked_branches,
        reported.recurrent,
        reported.channel_and_spatial_attention,
        reported.sizes_in_code,
        *hugging_face.TRANSFORMERS,
        hugging_face.hf_resnet_basic,
        hugging_face.hf_resnet_bottleneck,
        hugging_face.hf_mobilenet_v2,
        *zoo.ZOO,
    ]
}
"""By name."""
