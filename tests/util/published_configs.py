"""The keys and values of published config files, rebuilt from the specifications, for the tests."""

from __future__ import annotations

_AUGMENTATION = """\
  train_h: {size}
  train_w: {size}
  val_size: {size}
  scale_min: {scale[0]}
  scale_max: {scale[1]}
  rotate_min: -10
  rotate_max: 10
  ignore_label: 255
  padding_label: 255
"""

_SCHEDULE = """\
  start_epoch: 0
  power: 0.9 # 0 means no decay
  momentum: 0.9
  weight_decay: 0.0001
  warmup: False
  resume: # path to the latest checkpoint
  evaluate: True
  fix_random_seed_val: True
  resized_val: True
  manual_seed: 321
  zoom_factor: 8
"""

_DISTRIBUTED = """\
Distributed:
  dist_url: tcp://127.0.0.1:6789
  dist_backend: 'nccl'
  multiprocessing_distributed: False
  world_size: 1
  rank: 0
  use_apex: False
  opt_level: 'O0'
  keep_batchnorm_fp32:
  loss_scale:
"""

BAM_STAGE_1 = (
    """\
Data:
  data_root:  ../data/MSCOCO2014
  train_list: ./lists/coco/train.txt
  val_list:  ./lists/coco/val.txt
  classes: 61

Train:
"""
    + _AUGMENTATION.format(size=417, scale=(0.5, 2.0))
    + """\
  split: 0
  data_set: 'coco'
  use_split_coco: True # FWB
  batch_size: 3
  base_lr: 2.5e-4
  epochs: 20
  stop_interval: 75
  index_split: -1
  print_freq: 10
  save_freq: 5
  batch_size_val: 8
  ori_resize: False
  workers: 8
  seed_deterministic: False
"""
    + _SCHEDULE
    + """\

Method:
  layers: 50
  vgg: True
"""
)

BAM_STAGE_2 = (
    """\
Data:
  data_root: ../data/VOCdevkit2012/VOC2012
  base_data_root: ../data/base_annotation/pascal/
  train_list: ./lists/pascal/voc_sbd_merge_noduplicate.txt
  val_list: ./lists/pascal/val.txt
  classes: 2

Train:
"""
    + _AUGMENTATION.format(size=473, scale=(0.9, 1.1))
    + """\
  split: 0
  shot: 1
  data_set: 'pascal'
  use_split_coco: False
  batch_size: 2
  base_lr: 0.005
  epochs: 200
  stop_interval: 75
  index_split: -1
  print_freq: 10
  save_freq: 10
  SubEpoch_val: True
  batch_size_val: 1
  ori_resize: True
  workers: 8
  fix_bn: True
  seed_deterministic: False
"""
    + _SCHEDULE
    + """\

Method:
  layers: 50
  vgg: False
  aux_weight1: 1.0
  aux_weight2: 1.0
  low_fea: 'layer2'
  kshot_trans_dim: 2
  merge: 'final'
  merge_tau: 0.9

Test_Finetune:
  weight: # for testing
  ann_type: 'mask' # mask/bbox
"""
)

MSANET = BAM_STAGE_2.replace(
    "weight: # for", "weight: /home/someone/Our model_ public/resnet50_5_3_0.5093.pth #"
)

EFTNET = (
    BAM_STAGE_2.replace("manual_seed: 321", "manual_seed: 123")
    .replace(
        "  padding_label: 255\n",
        "  padding_label: 255\n  memobank: False\n  memolenth: 32\n  memochannel: 256\n",
    )
    .replace(
        "  aux_weight2: 1.0\n",
        "  sr_aux_weight1: 0.9\n  aux_weight2: 1.0\n  sr_aux_weight2: 1.0\n  memo_weight: 0.15\n",
    )
    .replace("weight: # for testing", "weight: resnet50_0_0.6925.pth")
    + """\
  loop_ft: True
  show: ''
  show_ft: ''
  ft_base_lr: 0.005
  ft_power: 0.9
  ft_number: 5
  change_weighting: [0.8, 0.2]
  q2s_filt_para: 0.2
"""
)

PFENET = (
    """\
DATA:
  data_root:
  train_list:
  val_list:
  classes: 2

TRAIN:
  layers: 101 # 50 or 101
  sync_bn: False
"""
    + _AUGMENTATION.format(size=641, scale=(0.8, 1.25))
    + _SCHEDULE
    + """\
  aux_weight: 1.0
  train_gpu: [0,1,2,3]
  workers: 16
  batch_size: 32
  batch_size_val: 1
  base_lr: 0.02
  epochs: 50
  print_freq: 5
  save_freq: 20
  save_path: exp/coco/split0_resnet101/model
  weight:
  split: 0
  shot: 1
  vgg: False
  ppm_scales: [1.0, 0.5, 0.25, 0.125]
  use_coco: True
  use_split_coco: True
  ori_resize: True

"""
    + _DISTRIBUTED
)

MIANET = (
    """\
DATA:
  classes: 2
  data_set: pascal  # coco

TRAIN:
  layers: 50
  sync_bn: False
"""
    + _AUGMENTATION.format(size=473, scale=(0.9, 1.1))
    + _SCHEDULE.replace("321", "1234    #1234")
    + """\
  aux_weight: 1.0
  train_gpu: [0]
  workers: 8
  batch_size: 4
  batch_size_val: 1
  base_lr: 0.005
  epochs: 200
  print_freq: 5
  save_freq: 20
  save_path: exp/pascal/split0_resnet50/model
  weight:
  split: 0
  shot: 1
  vgg: True
  ppm_scales: [60, 30, 15, 8]
  use_split_coco: True
  ori_resize: True

"""
    + _DISTRIBUTED
)
