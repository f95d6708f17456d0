from components.train.interface import Train
from components.train.train import train
from components.step import main

main(Train, train)
