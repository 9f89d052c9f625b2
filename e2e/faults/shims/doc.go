// Package shims injects the faults of shims on real parts: rows F17 to F37 of the fault matrix. F21, F24 and F26 are numbers that the matrix leaves
// out; F21 is used here for rows 18 and 19 of the state table (see package faults). Tests named without a folder are in e2e/restart and e2e/core.
// hack's TestEveryRowOfTheMatrixHasATest checks that the tests exist.
//
//	F17  SIGKILL under three containers, an exec and a port-forward  TestF17AShimIsKilledUnderThreeContainersAnExecAndAPortForward, TestAShimIsKilled
//	F18  SIGKILL before, in and after a create, and in a start       TestF18AShimDiesDuringAStart
//	F19  SIGKILL in the grace, in the delete, in the shutdown        TestF19AShimDiesDuringAStop
//	F20  SIGSTOP, and nothing asked of it but what waits             TestAShimHangs, TestF21AShimThatHangsForGood
//	F22  SIGSTOP, then stop and removal                              TestF22AStoppedShimKeepsNobodyFromEnding
//	F23  one of 50 stopped at a restart                              TestF23FiftyPodsWithOneHungShim, TestAHungShimAtTheStart
//	F25  SIGHUP, SIGUSR1, SIGTERM, SIGINT                            TestF25SignalsThatAShimIsSent
//	F27  its socket is removed                                       TestF27TheSocketOfAShimIsRemovedUnderARunningCrid, TestAShimsSocketIsGone
//	F28  SIGKILL while crid is down                                  TestF29ShimAndMembersDieWhileCridIsDown, TestAShimDiesWhileCridIsDown
//	F29  SIGKILL, and of its members, while crid is down             TestF29ShimAndMembersDieWhileCridIsDown
//	F30  exits while crid is down for 10, 20, 60 s                   TestF30ExitsWhileCridIsDown
//	F31  the events socket stalls; 200 execs                         TestF31TheEventsSocketIsStalled, TestF31TwoHundredExecsAndTheirEvents
//	F32  forged, doubled, misplaced events                           TestF32ForgedEvents
//	F33  other releases of the shim, upgrade and downgrade           TestF33TheShimIsUpgradedAndDowngradedUnderRunningPods, TestOldShimConforms, TestEveryDialect
//	F34  shims that cannot be used                                   TestF34ShimsThatCannotBeUsed, TestShimsThatAreNone
//	F35  SIGKILL of 50 at once                                       TestF23FiftyPodsWithOneHungShim
//	F36  a hung `runc kill` poisons a whole shim                     TestF36AHungRuncKillPoisonsTheShim
//	F37  a delete outlives its deadline                              TestF37ADeleteOutlivesItsDeadline, TestUnmountsOfCridTakeTwelveSeconds
//
// What cannot be injected here, and what stands for it: F31, crid's own listener paused: it takes a debugger to stop one goroutine, so its
// never waiting for a reader is a unit test (TestShimIsAnsweredAlthoughNobodyReads), and the stalled socket is somebody else's in its place.
// F33, shims of 1.6, 2.0 and 2.3: built by the project are 1.7 and 2.4; the dialects of the others are spoken by a test program (TestEveryDialect).
// F37, the unmount inside the shim: crid mounts by itself, so a shim has nothing to unmount; the delete that takes 14 seconds is runc's, and
// crid's own unmounts are slowed down besides.
package shims
