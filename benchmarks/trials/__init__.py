"""What hostile.py and kills.py are made of: forks, damages, odd things, and the folder that they are tried in."""
