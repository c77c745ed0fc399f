"""python -m trainer_image"""

from trainer_image.cli import main

main()
