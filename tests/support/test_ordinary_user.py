"""What runs as an ordinary user is held to permissions, whoever runs the tests."""

from tests.support.ordinary_user import folder_of_ordinary_user, run_program_as_ordinary_user


def test_an_ordinary_user_works_in_its_folder_and_reads_nothing_that_is_forbidden() -> None:
    program = """
path = sys.argv[1] + "/file"
with merkledb.open(sys.argv[1] + "/store") as database:
    database.commit({b"key": b"value"})
with open(path, "w") as file:
    file.write("text")
os.chmod(path, 0)
try:
    open(path)
except PermissionError:
    print("forbidden")
"""
    with folder_of_ordinary_user() as folder:
        done = run_program_as_ordinary_user(program, folder)
    assert (done.returncode, done.stdout) == (0, "forbidden\n"), done.stderr
