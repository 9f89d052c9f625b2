// Package kernel injects the faults of runc, of the kernel and of workloads on real parts: rows F38 to F58 of the fault matrix. F42, F46, F51 and
// F57 are numbers that the matrix leaves out. Tests named without a folder are in e2e/restart, e2e/core and e2e/v2. hack's
// TestEveryRowOfTheMatrixHasATest checks that the tests exist.
//
//	F38  runc create sleeps before or after its work                 TestRuncHangsInCreate, TestF18AShimDiesDuringAStart
//	F39  runc kill hangs                                             TestRuncCannotKill, TestF36AHungRuncKillPoisonsTheShim
//	F40  runc delete hangs, fails, does nothing                      TestRuncCannotDelete, TestF37ADeleteOutlivesItsDeadline
//	F41  runc missing, 127, SIGSEGV, garbage, too many words         TestF41RuncThatIsNone, TestRuncSaysTooMuchOrIsNotThere
//	F43  a process that nobody can kill                              TestF43AProcessThatCannotBeKilled
//	F44  a volume that hangs when it is looked at                    TestF44AVolumeThatHangs
//	F45  frozen from outside                                         TestF45AFrozenContainer, TestAFrozenContainerCanBeStopped
//	F47  a whole cgroup killed from outside                          TestF47AWholeCgroupIsKilled, TestTheKernelKillsAWholeCgroup
//	F48  the main process out of memory                              TestF48OutOfMemory
//	F49  a child out of memory                                       TestF48OutOfMemory
//	F50  an exec, and runc's init, out of memory                     TestF50OutOfMemoryInAnExecAndInAStart
//	F52  children outlive the main process and hold its output       TestF52ChildrenThatOutliveTheMainProcess
//	F53  execs that leave somebody behind                            TestF53ExecsThatLeaveSomebodyBehind, TestAChildInTheBackgroundDoesNotHoldTheAnswer
//	F54  the main process ends under many execs                      TestF54TheMainProcessEndsUnderManyExecs
//	F55  output without end; a line of 100 MiB                       TestF55AnExecThatPrintsForEver, TestALineOf100MiB, TestLinesAreCutAndMarked
//	F56  pids are given away                                         TestF56PidsAreGivenAway
//	F58  no process may be made                                      TestF58AFullPidsCgroup, TestF58CridMayMakeNoProcess
//
// And what the proof of "no zombie" asks for besides: TestThirtyTwoCallersAndOneSignal, TestAnEventsClientThatNeverReads (in shims).
//
// What cannot be injected here, and what stands for it: F43 and F44, a disk or a network file system that hangs: a FUSE file system that never
// answers hangs its readers in the same state (D). F45 and F47, the files of cgroup v2: in the guest (make test-v2), here those of v1. F56, a small
// pid_max: the next pid is chosen instead. F58, crid itself without leave to make a thread: the runtime of the language it is written in ends it
// then; the test wants everything unhurt after its next start (the unit as shipped sets TasksMax=infinity).
package kernel
