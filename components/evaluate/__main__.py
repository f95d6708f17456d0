from components.evaluate.interface import Evaluate
from components.evaluate.evaluate import evaluate
from components.step import main

main(Evaluate, evaluate)
