from components.plan.interface import Plan
from components.step import Metadata, main


def work(step: Plan) -> Metadata:
    # Imported here, so that --help and a wrong flag do not wait for what the work needs.
    from components.plan.plan import plan

    return plan(step)


main(Plan, work)
