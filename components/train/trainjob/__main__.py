from components.step import main
from components.train.trainjob.worker import Worker, work

main(Worker, work)
